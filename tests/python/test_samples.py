"""Modules of samples: convolutions and whatever else is not the same for every row. Each shape is compiled by itself."""

import pytest
import serving
import torch
from conftest import Deployment, close
from torch import nn

from hemi_fhe import HemiShapeError, HemiUnsupportedError
from hemi_fhe.deployment import FHEModelClient, FHEModelServer
from hemi_fhe.torch.hybrid_model import HybridFHEModel

MODES = ("disable", "simulate", "execute")


def compiled(module, x, **options):
    torch.manual_seed(2)
    hybrid = HybridFHEModel(nn.Sequential(module, nn.Identity()).eval(), ["0"])
    hybrid.compile_model(x, **options)
    return hybrid


@pytest.mark.parametrize(
    "module, shape",
    [
        (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 8, 8)),
        (lambda: nn.Conv2d(3, 6, 3, stride=2, bias=False), (3, 9, 7)),
        (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 6, 6)),
        (lambda: nn.Conv2d(2, 3, 3, dilation=2), (2, 8, 8)),
        (lambda: nn.Conv2d(1, 4, 5), (1, 8, 8)),
        (lambda: nn.Conv1d(3, 4, 3, padding=1), (3, 20)),
        (lambda: nn.ConvTranspose2d(3, 2, 2, stride=2), (3, 5, 5)),
        (lambda: nn.AvgPool2d(2), (3, 8, 8)),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (3, 6, 6)),
        (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 7)), (2, 6, 6)),
    ],
)
def test_modes_agree(module, shape):
    torch.manual_seed(1)
    module = module()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    hybrid = compiled(module, torch.randn(8, *shape), n_bits=10)
    x = torch.randn(3, *shape)
    reference = hybrid(x, fhe="torch")
    for mode in MODES:
        y = hybrid(x, fhe=mode)
        close(y, reference, 0.02 * reference.abs().max().item())
        assert y.shape == reference.shape
    one = hybrid(x[0], fhe="execute")  # a sample alone
    close(one, reference[0], 0.02 * reference.abs().max().item())
    assert hybrid(x[:0], fhe="execute").shape == (0, *reference.shape[1:])


def test_other_shapes_are_refused():
    hybrid = compiled(nn.Conv2d(3, 4, 3), torch.randn(4, 3, 8, 8))
    for shape in ((2, 3, 9, 8), (2, 4, 8, 8), (8, 8), (2, 2, 3, 8, 8)):
        with pytest.raises(HemiShapeError, match="takes samples of the shape it was compiled for, N x 3 x 8 x 8; got shape"):
            hybrid(torch.randn(shape), fhe="disable")


def test_what_cannot_be_encrypted_is_named():
    with pytest.raises(HemiUnsupportedError, match="MaxPool.*AvgPool.*client"):
        compiled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), torch.randn(4, 3, 8, 8))


def test_no_gradients():
    with pytest.raises(HemiUnsupportedError, match="backward=True takes Linear and Conv1D"):
        compiled(nn.Conv2d(3, 4, 3), torch.randn(4, 3, 8, 8), backward=True)


class Net(nn.Module):
    """The same convolutions for images of any size."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 5, 3)
        self.last = nn.Linear(5, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x))
        return self.last(x.mean((-1, -2)))


SHAPES = [(3, 12, 12), (3, 8, 10)]


class Twice(nn.Module):
    """Runs a model on images of two sizes: the owner's calibration."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, *images):
        return [self.net(x) for x in images]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    names = ["net.first", "net.second", "net.last"]
    return Deployment(tmp_path_factory.mktemp("samples"), Twice, names, tuple(torch.randn(6, *s) for s in SHAPES), n_bits=10)


@pytest.fixture(scope="module")
def server(deployed):
    with serving.hemi_server(deployed.models, "--quiet") as process:
        yield process


def test_several_shapes_on_disk(deployed):
    assert sorted(f.name for f in (deployed.folder / "net.first").iterdir()) == ["po_1_3_12_12_pc", "po_1_3_8_10_pc"]
    assert [f.name for f in (deployed.folder / "net.last").iterdir()] == ["po_1_5_pc"]


@pytest.mark.parametrize("with_files", [False, True])
def test_remote(deployed, server, tmp_path, with_files):
    client = deployed.client(server.url, path_to_clients=tmp_path if with_files else None)
    for shape in SHAPES:
        x = torch.randn(4, *shape)
        expected = deployed.float.net(x)
        close(client.model.net(x), expected, 0.05 * expected.abs().max().item())
    assert sorted(client.remote_modules["net.first"].clients) == ["po_1_3_12_12_pc", "po_1_3_8_10_pc"]
    with pytest.raises(HemiShapeError, match="'net.first' takes samples of the shapes it was compiled for, N x 3 x 12 x 12 or N x 3 x 8 x 10; got"):
        client.model.net(torch.randn(1, 3, 9, 9))
    if with_files:
        again = deployed.client(server.url, path_to_clients=tmp_path)
        assert len(again.remote_modules["net.first"].clients) == 2
        again.model.net(torch.randn(1, *SHAPES[1]))


def test_saving_again_removes_other_shapes(tmp_path):
    for size in (8, 10):
        hybrid = compiled(nn.Conv2d(3, 4, 3), torch.randn(4, 3, size, size))
        hybrid.save_and_clear_private_info(tmp_path)
    assert [f.name for f in (tmp_path / "0").iterdir()] == ["po_1_3_10_10_pc"]


def test_deployment_classes(tmp_path):
    module = nn.Conv2d(2, 3, 3)
    x = torch.randn(5, 2, 6, 6)
    hybrid = compiled(module, x)
    hybrid.save_and_clear_private_info(tmp_path / "model")
    folder = tmp_path / "model" / "0" / "po_1_2_6_6_pc"
    client, server = FHEModelClient(folder), FHEModelServer(folder)
    request = client.quantize_encrypt_serialize(x)
    y = client.deserialize_decrypt_dequantize(server.run(request, client.get_serialized_evaluation_keys()))
    assert y.shape == (5, 3, 4, 4)
    with pytest.raises(HemiShapeError, match="compiled for, N x 2 x 6 x 6"):
        client.quantize_encrypt_serialize(torch.randn(5, 2, 6, 5))

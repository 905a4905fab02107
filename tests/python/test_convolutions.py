"""Modules of convolutions and of whole samples, from torch to compiled modules: the quantised product in the clear against torch."""

import json
import subprocess

import numpy
import pytest
import torch
from torch import nn

import serving
from conftest import Deployment
from hemi_fhe.deployment import FHEModelClient, FHEModelDev, FHEModelServer
from hemi_fhe.errors import HemiShapeError, HemiUnsupportedError
from hemi_fhe.torch.compile import compile_torch_model


HEMI = serving.PROGRAM.parent / "hemi"


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.conv(x))


class View(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Cat(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 1)


class Positions(nn.Module):
    """A map of rows, and then something of its own for every position."""

    def __init__(self):
        super().__init__()
        self.linear, self.where = nn.Linear(6, 5), nn.Parameter(torch.randn(7, 5))

    def forward(self, x):
        return self.linear(x) + self.where


# name: (module, shape of a sample, operation)
CASES = {
    "3 x 3": (lambda: nn.Conv2d(3, 8, 3), (3, 8, 8), "conv"),
    "padding": (lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8), "conv"),
    "stride": (lambda: nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 9, 11), "conv"),
    "sides": (lambda: nn.Conv2d(3, 8, (3, 5), stride=(1, 2), padding=(1, 2)), (3, 8, 9), "conv"),
    "dilation": (lambda: nn.Conv2d(3, 8, 3, padding=2, dilation=2), (3, 10, 10), "conv"),
    "groups": (lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3), (6, 8, 8), "conv"),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (6, 8, 8), "conv"),
    "same": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (3, 8, 8), "conv"),
    "7 x 7": (lambda: nn.Conv2d(3, 16, 7, stride=2, padding=3), (3, 32, 32), "conv"),
    "transposed": (lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 5, 6), "conv"),
    "transposed groups": (lambda: nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), (6, 5, 6), "conv"),
    "1-D": (lambda: nn.Conv1d(8, 12, 5, padding=2, stride=2), (8, 40), "conv"),
    "1-D transposed": (lambda: nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1), (8, 20), "conv"),
    "average": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(2)), (3, 8, 8), "conv"),
    "average, padded": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (4, 8, 8), None),
    "average of what is there": (lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), (2, 6, 6), "dense"),
    "norm folded": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)), (3, 8, 8), "conv"),
    "norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, padding=1)), (3, 6, 6), "dense"),
    "two": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)), (3, 8, 8), "conv"),
    "two padded": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), (3, 6, 6), "dense"),
    "residual": (lambda: Residual(8), (8, 8, 8), "conv"),
    "concatenated": (Cat, (3, 8, 8), "conv"),
    "zeros around": (lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(3, 4, 2, stride=2)), (3, 7, 7), "conv"),
    "flatten": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 3 * 3, 10)), (3, 8, 8), "dense"),
    "flatten first": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 10), nn.Dropout()), (3, 4, 4), "dense"),
    "view": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), View(), nn.Linear(64, 6)), (3, 6, 6), "dense"),
    "pooled head": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)), (16, 4, 4), "dense"),
    "mean": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Mean()), (3, 6, 6), "dense"),
    "norm of rows": (lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8)), (12,), "linear"),
    "positions": (Positions, (7, 6), "dense"),
    "rows": (lambda: nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 4)), (5, 12), "linear"),
}


def make(name):
    torch.manual_seed(1)
    module, shape, operation = CASES[name][0]().eval(), CASES[name][1], CASES[name][2]
    for m in module.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
            m.weight.data.uniform_(0.5, 2)
            m.bias.data.normal_()
    return module, torch.randn(4, *shape), operation


def error(y, expected):
    return ((y - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", CASES)
def test_quantised_product_is_near_torch(name):
    module, x, operation = make(name)
    compiled = compile_torch_model(module, x, n_bits=10)
    with torch.no_grad():
        expected = module(x)
    y = compiled(x)
    assert y.shape == expected.shape and y.dtype == expected.dtype
    assert error(y, expected) < 0.004
    assert error(compiled(x, fhe="simulate"), expected) < 0.005
    if operation is not None:
        assert compiled.info["operation"] == operation
    if operation != "linear":
        assert compiled.info["shape"] == (1, *x.shape[1:]) and compiled.info["output_shape"] == (1, *expected.shape[1:])
        assert torch.equal(compiled(x[0]), y[0])
        with pytest.raises(HemiShapeError, match="samples of the shape it was compiled for"):
            compiled(torch.randn(4, *x.shape[1:], 2))


@pytest.mark.parametrize("name", ["stride", "transposed", "1-D", "flatten"])
def test_encrypted(name):
    module, x, _ = make(name)
    compiled = compile_torch_model(module, x, n_bits=10)
    with torch.no_grad():
        assert error(compiled(x[:2], fhe="execute"), module(x[:2])) < 0.005


def test_without_a_batch():
    module, x, _ = make("padding")
    compiled = compile_torch_model(module, x[0], n_bits=10)
    with torch.no_grad():
        assert error(compiled(x[0]), module(x[0])) < 0.004
    assert compiled.info["shape"] == (1, *x.shape[1:])


@pytest.mark.parametrize(
    "module, shape, text",
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), (3, 8, 8), "MaxPool .* compares numbers: use AvgPool"),
        (nn.Conv3d(1, 2, 2), (1, 4, 4, 4), "5 dimensions"),
        (nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)), (16, 40, 40), "two remote modules"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 8, 8), "repeats or mirrors the edge"),
    ],
)
def test_refused(module, shape, text):
    with pytest.raises(HemiUnsupportedError, match=text):
        compile_torch_model(module.eval(), torch.randn(2, *shape))


class Small(nn.Module):
    """A network whose convolutions are remote."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8 * 4 * 4, 10)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.flatten(1))


def test_remote(tmp_path):
    there = Deployment(tmp_path, Small, ["conv1", "conv2", "head"], torch.randn(20, 1, 8, 8), model_name="small", n_bits=10)
    with serving.hemi_server(there.models, "--quiet") as process:
        client = there.client(process.url)
        x = torch.randn(3, 1, 8, 8)
        with torch.no_grad():
            assert error(client(x), there.float(x)) < 0.01
        assert client.stats()["conv1"]["rows"] == 3
        assert (tmp_path / "small" / "conv1" / "po_1_1_8_8_pc").is_dir()


def test_deployment(tmp_path):
    module, x, _ = make("stride")
    FHEModelDev(str(tmp_path), compile_torch_model(module, x, n_bits=10)).save()
    client, server = FHEModelClient(str(tmp_path)), FHEModelServer(str(tmp_path))
    client.generate_private_and_evaluation_keys()
    request = client.quantize_encrypt_serialize(x[:2])
    y = client.deserialize_decrypt_dequantize(server.run(request, client.get_serialized_evaluation_keys()))
    with torch.no_grad():
        assert error(torch.from_numpy(y), module(x[:2])) < 0.005
    with pytest.raises(HemiShapeError):
        client.quantize_encrypt_serialize(x[:, :2])


def hemi(*arguments, code=0):
    done = subprocess.run([str(HEMI), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_programs(tmp_path):
    module, x, _ = make("stride")
    torch.onnx.export(module, x[:1], str(tmp_path / "conv.onnx"))
    numpy.save(tmp_path / "x.npy", x.numpy())
    models = tmp_path / "models"
    said = hemi("compile", tmp_path / "conv.onnx", "--name", "conv", "-c", tmp_path / "x.npy", "-o", models / "m", "--n-bits", "10")
    assert "conv, 3x9x11 -> 8x5x6 with bias" in said and "one sample" in said
    assert "3x9x11 -> 8x5x6" in hemi("inspect", models)
    info = json.loads(hemi("inspect", models, "--json"))["modules"][0]
    assert info["output_shape"] == [1, 8, 5, 6] and info["units"] == 1
    with serving.hemi_server(models, "--quiet") as process:
        call = ["call", process.url, "m", "conv", "--input"]
        hemi(*call, tmp_path / "x.npy", "--output", tmp_path / "y.npy")
        with torch.no_grad():
            expected = module(x)
        y = numpy.load(tmp_path / "y.npy")
        assert y.shape == expected.shape and error(torch.from_numpy(y), expected) < 0.005
        numpy.save(tmp_path / "one.npy", x[0].numpy())
        hemi(*call, tmp_path / "one.npy", "--output", tmp_path / "y.npy")
        assert numpy.load(tmp_path / "y.npy").shape == expected.shape[1:]
        numpy.save(tmp_path / "other.npy", x.numpy()[:, :, 1:])
        assert "po_1_3_9_11_pc" in hemi(*call, tmp_path / "other.npy", code=8)

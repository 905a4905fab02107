"""Modules that were trained with Brevitas, whose quantisers the compiler follows. Skipped where Brevitas is not installed: examples/venv.sh
makes an environment that has it."""

import warnings

import pytest

pytest.importorskip("brevitas", reason="Brevitas is not installed: see examples/venv.sh")
pytest.importorskip("onnxoptimizer", reason="onnxoptimizer, which Brevitas exports with, is not installed: see examples/venv.sh")

import brevitas.nn as qnn  # noqa: E402
import serving  # noqa: E402
import torch  # noqa: E402
from conftest import Deployment  # noqa: E402
from torch import nn  # noqa: E402

from hemi_fhe import HemiAccuracyWarning, HemiUnsupportedError  # noqa: E402
from hemi_fhe.torch.compile import compile_brevitas_qat_model, compile_onnx_model, compile_torch_model  # noqa: E402
from hemi_fhe.torch.hybrid_model import HybridFHEModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Named tensors", "ignore:.*__torch_function__")


class MLP(nn.Module):
    def __init__(self, weights=4, activations=8):
        super().__init__()
        self.input = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.first = qnn.QuantLinear(10, 16, True, weight_bit_width=weights, bias_quant=None)
        self.relu = qnn.QuantReLU(bit_width=activations, return_quant_tensor=True)
        self.last = qnn.QuantLinear(16, 4, True, weight_bit_width=weights, bias_quant=None)

    def forward(self, x):
        return self.last(self.relu(self.first(self.input(x))))


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.first = qnn.QuantConv2d(1, 3, 3, weight_bit_width=4, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.relu = qnn.QuantReLU(bit_width=6)
        self.last = qnn.QuantLinear(3 * 9, 4, True, weight_bit_width=4, bias_quant=None)

    def forward(self, x):
        return self.last(self.relu(self.norm(self.first(self.input(x)))).flatten(1))


def trained(make, shape):
    """Its quantisers have seen data."""
    torch.manual_seed(0)
    module = make().train()
    for _ in range(20):
        module(torch.randn(64, *shape))
    return module.eval()


def relative(y, reference):
    assert y.shape == reference.shape
    return ((y - reference).double().pow(2).mean().sqrt() / reference.double().std()).item()


@pytest.mark.parametrize("make, shape", [(MLP, (10,)), (CNN, (1, 5, 5)), (lambda: MLP(2, 8), (10,)), (lambda: MLP(8, 8), (10,))])
def test_weights_are_as_they_were_quantised(make, shape):
    module, x = trained(make, shape), torch.randn(200, *shape)
    reference = module(x).detach()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HemiAccuracyWarning)
        compiled = compile_brevitas_qat_model(module, x)
    assert relative(compiled(x), reference) < 1e-5  # every number of it
    for mode in ("simulate", "execute"):
        assert relative(compiled(x[:4], fhe=mode), reference[:4]) < 0.2, mode
    assert relative(compiled(x, fhe="simulate"), reference) <= 1.2 * compiled.info["approximation_error"] + 0.01
    # the module goes on as it was
    assert torch.equal(module(x), reference)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_few_bits_are_told():
    module, x = trained(lambda: MLP(4, 3), (10,)), torch.randn(200, 10)
    reference = module(x).detach()
    with pytest.warns(HemiAccuracyWarning, match="MLP rounds activations to few bits.*%") as caught:
        compiled = compile_brevitas_qat_model(module, x)
    assert caught[0].filename == __file__
    assert 0.05 < compiled.info["approximation_error"] < 0.4
    assert relative(compiled(x), reference) < 1e-5
    with pytest.raises(HemiUnsupportedError, match="tolerance"):
        compile_brevitas_qat_model(module, x, tolerance=0.01)


def test_all_ways_are_the_same(tmp_path):
    module, x = trained(MLP, (10,)), torch.randn(200, 10)
    reference = module(x).detach()
    file = tmp_path / "model.onnx"
    options = {"tolerance": 0.1}
    assert relative(compile_brevitas_qat_model(module, x, output_onnx_file=file, **options)(x), reference) < 1e-5
    assert relative(compile_onnx_model(file, x, import_qat=True, n_bits=8, **options)(x), reference) < 1e-5
    assert relative(compile_torch_model(module, x, import_qat=True, **options)(x), reference) < 1e-5
    hybrid = HybridFHEModel(nn.Sequential(module), "0")
    hybrid.compile_model(x, n_bits=8, **options)
    assert relative(hybrid(x), reference) < 1e-5


def test_remote(tmp_path):
    """The owner needs Brevitas, and so does the application, to build the model; the module's weights are on the server only."""
    d = Deployment(tmp_path, lambda: trained(lambda: nn.Sequential(MLP()), (10,)), "0", torch.randn(200, 10), tolerance=0.1)
    with serving.hemi_server(d.models, "--quiet") as server:
        client = d.client(server.url)
        x = torch.randn(5, 10)
        assert relative(client(x), d.float(x).detach()) < 0.2


def test_what_brevitas_cannot_export():
    with pytest.raises((HemiUnsupportedError, ValueError)):
        compile_brevitas_qat_model(trained(MLP, (10,)), torch.randn(20, 9))
    with pytest.raises(TypeError):
        compile_brevitas_qat_model("model", torch.randn(20, 9))

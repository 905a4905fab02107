"""Modules with activations: compiled, in every mode, deployed, called over HTTP."""

import copy
import gc
import io
import json
import re
import shutil
import struct
import sys
import threading
import warnings

import numpy
import pytest
import serving
import torch
from conftest import ROOT, Conv1D, Deployment, FCSmall, close
from test_owner import numbers_in, private_facts, tensors_holding, unpacked
from torch import nn
from torch.nn import functional as F

from hemi_fhe import HemiArgumentError, HemiParamsError, HemiRangeWarning, HemiShapeError, HemiUnsupportedError
from hemi_fhe._progress import Bar
from hemi_fhe.deployment import FHEModelClient, FHEModelDev, FHEModelServer
from hemi_fhe.torch.compile import compile_brevitas_qat_model, compile_onnx_model, compile_torch_model
from hemi_fhe.torch.hybrid_model import HybridFHEModel, HybridFHEModelServer

MODES = ("disable", "simulate", "execute")


class Block(nn.Module):
    """The feed-forward part of a transformer."""

    def __init__(self, size=8, hidden=32):
        super().__init__()
        self.up, self.down = nn.Linear(size, hidden), nn.Linear(hidden, size)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class Gated(nn.Module):
    """That of Llama: a product of two values."""

    def __init__(self, size=8, hidden=16):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(size, hidden, False), nn.Linear(size, hidden, False), nn.Linear(hidden, size, False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Residual(nn.Module):
    def __init__(self, size=12):
        super().__init__()
        self.a, self.b = nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, x):
        return x + self.b(torch.tanh(self.a(x)))


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.last = nn.Linear(4 * 9, 5)

    def forward(self, x):
        x = F.avg_pool2d(F.silu(self.norm(self.first(x))), 2)
        return self.last(x.flatten(1))


class Holder(nn.Module):
    """A model whose part `part` is remote."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def relative(y, reference):
    """The error's root mean square, relative to the outputs' deviation."""
    assert y.shape == reference.shape and y.dtype == reference.dtype
    return ((y - reference).double().pow(2).mean().sqrt() / reference.double().std()).item()


def hybrid_of(part, x, **options):
    hybrid = HybridFHEModel(Holder(part).eval(), "part")
    hybrid.compile_model(x, **options)
    return hybrid


@pytest.mark.parametrize(
    "make, shape, of_rows",
    [
        (lambda: nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10)), (10,), True),
        (lambda: nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(), nn.Linear(16, 3)), (6,), True),
        (lambda: nn.Sequential(nn.Linear(6, 16), nn.SiLU()), (6,), True),
        (lambda: nn.Sequential(nn.Sigmoid(), nn.Linear(6, 4, bias=False)), (6,), True),
        (lambda: nn.Sequential(Conv1D(16, 6), nn.Hardtanh(), Conv1D(4, 16)), (6,), True),
        (Block, (5, 8), True),
        (Gated, (8,), True),
        (Residual, (12,), True),
        (CNN, (1, 6, 6), False),
        (lambda: nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.GELU(), nn.Conv1d(4, 2, 1)), (2, 10), False),
    ],
)
def test_modes_agree(make, shape, of_rows):
    torch.manual_seed(1)
    part = make()
    hybrid = hybrid_of(part, torch.randn(120, *shape))
    module = hybrid.private_q_modules["part"]
    assert module.info["operation"] == "circuit" and module.is_circuit and module.of_rows == of_rows
    x = torch.randn(2, *shape)
    reference = hybrid(x, fhe="torch").detach()
    for mode, limit in zip(MODES, (0.03, 0.08, 0.08)):
        assert relative(hybrid(x, fhe=mode), reference) < limit, mode
    # what encryption adds is small, and what simulation says of it
    simulated, executed = hybrid(x, fhe="simulate"), hybrid(x, fhe="execute")
    assert relative(executed, simulated) < 1e-3
    one = hybrid(x[0], fhe="simulate")
    assert relative(one, reference[0]) < 0.1 and hybrid(x[:0], fhe="execute").shape == (0, *reference.shape[1:])


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(2)
    return hybrid_of(nn.Sequential(nn.Linear(10, 16), nn.GELU(), nn.Linear(16, 7)), torch.randn(300, 10))


@pytest.mark.parametrize("shape", [(10,), (1, 10), (600, 10), (2, 3, 10), (2, 1, 3, 10), (0, 10), (2, 0, 10)])
def test_rows_of_any_shape(rows, shape):
    x = torch.randn(*shape)
    reference = rows(x, fhe="torch").detach()
    for mode in MODES:
        close(rows(x, fhe=mode), reference, 0.05)
    with pytest.raises(HemiShapeError, match="'part' takes 10 features"):
        rows(torch.zeros(*shape[:-1], 9), fhe="simulate")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_comes_back(rows, dtype):
    x = torch.randn(4, 10)
    y = rows.model.part(x.to(dtype))
    assert y.dtype is dtype and (y.float() - rows(x, fhe="torch")).abs().max() < 0.05


def test_samples_have_one_shape():
    hybrid = hybrid_of(CNN(), torch.randn(40, 1, 6, 6))
    for shape in ((2, 1, 6, 7), (2, 2, 6, 6), (6, 6)):
        with pytest.raises(HemiShapeError, match="takes samples of the shape it was compiled for, N x 1 x 6 x 6; got"):
            hybrid(torch.zeros(shape), fhe="disable")
    assert hybrid(torch.zeros(1, 6, 6), fhe="disable").shape == (5,)


def test_several_shapes():
    """Samples: each compiled by itself. Rows: one module, whatever the shapes of the calibration."""

    class Twice(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, *inputs):
            return [self.part(x) for x in inputs]

    hybrid = HybridFHEModel(Twice(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU())), "part")
    hybrid.compile_model((torch.randn(20, 1, 5, 5), torch.randn(20, 1, 4, 6)))
    module = hybrid.private_q_modules["part"]
    assert module.input_shapes == [(1, 1, 5, 5), (1, 1, 4, 6)] and set(module.infos) == set(module.input_shapes)
    x = torch.randn(2, 1, 4, 6)
    close(hybrid(x, fhe="simulate")[0], hybrid(x, fhe="torch")[0].detach(), 0.05)
    assert module.bitwidth_and_range_report((1, 1, 4, 6)) != module.bitwidth_and_range_report()
    with pytest.raises(HemiArgumentError):
        module.bitwidth_and_range_report((1, 1, 9, 9))

    hybrid = HybridFHEModel(Twice(Block()), "part")
    hybrid.compile_model((torch.randn(20, 5, 8), torch.randn(30, 8), torch.randn(2, 3, 4, 8)))
    assert hybrid.private_q_modules["part"].input_shapes == [(1, 8)]
    x = torch.randn(3, 2, 8)
    close(hybrid(x, fhe="simulate")[0], hybrid(x, fhe="torch")[0].detach(), 0.05)


# ---- what it is compiled with


def mlp(seed=3, activation=nn.GELU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 16), activation(), nn.Linear(16, 4)).eval()


def test_bits_of_weights():
    part, x = mlp(), torch.randn(200, 10)
    reference = part(x).detach()
    errors = [relative(compile_torch_model(part, x, n_bits=n_bits)(x), reference) for n_bits in (4, 6, 8, 12, None)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.02 and errors[2] < 0.01 and errors[4] < 1e-6
    assert compile_torch_model(part, x).info["weight_bits"] == 8


def test_bits_of_inputs():
    """Not rounded, unless a dict asks for it."""
    part, x = mlp(), torch.randn(200, 10)
    reference = part(x).detach()
    for key in ("op_inputs", "model_inputs"):
        module = compile_torch_model(part, x, n_bits={"op_weights": 16, key: 4})
        assert module.info["input_bits"] == 4 and module.info["weight_bits"] == 16
        y = module(x)
        assert 0.01 < relative(y, reference) < 0.3
        assert torch.equal(module(x + 1e-7 * x), y)  # of the same rounded input
    assert compile_torch_model(part, x, n_bits={"op_weights": 16}).info["input_bits"] == 0


def test_tolerance():
    part, x = mlp(activation=nn.ReLU), torch.randn(300, 10)
    exact = compile_torch_model(part, x, n_bits=None)(x)
    degrees = []
    for tolerance in (0.05, 0.02, 0.008):
        module = compile_torch_model(part, x, n_bits=None, tolerance=tolerance)
        assert module.info["approximation_error"] <= tolerance
        assert relative(module(x, fhe="simulate"), exact) < 1.5 * tolerance
        degrees.append(module.bitwidth_and_range_report()["Relu (node '/1/Relu')"]["degree"])
    assert degrees == sorted(degrees) and degrees[0] < degrees[-1]
    with pytest.raises(HemiUnsupportedError, match="Relu.*degree 7 or less.*tolerance"):
        compile_torch_model(part, x, tolerance=0.001, degree_max=7)


def test_options():
    part, x = mlp(), torch.randn(100, 10)
    wide = compile_torch_model(part, x, range_margin=3).info
    narrow = compile_torch_model(part, x, range_margin=1).info
    assert wide["input_high"] > 2.5 * narrow["input_high"]
    assert compile_torch_model(part, x, parameter_set="C32768").info["set"] == "C32768"
    assert compile_torch_model(part, x, configuration={"set": "C32768"}).info["set"] == "C32768"
    assert compile_torch_model(part, x, rows=64).info["packed_rows"] == 64
    linear = compile_torch_model(part[0], x, configuration={"force_circuit": True})
    assert linear.info["operation"] == "circuit" and linear.info["activations"] == 0
    close(linear(x[:3], fhe="execute"), part[0](x[:3]).detach())
    for wrong in ({"tolerance": -1}, {"range_margin": 0.5}, {"degree_max": 1000}, {"rows": 3}, {"parameter_set": "C1"}, {"parameter_set": "L4096"}):
        with pytest.raises((HemiArgumentError, HemiParamsError)):
            compile_torch_model(part, x, **wrong)
    with pytest.raises(ValueError, match="tolerance"):
        compile_torch_model(part, x, configuration={"tolerances": 1})


def test_options_of_each_module():
    model = nn.Sequential(mlp(), nn.Linear(4, 10), mlp(4)).eval()
    hybrid = HybridFHEModel(model, ["0", "1", "2"])
    hybrid.compile_model(torch.randn(100, 10), configuration={"0": {"set": "C32768"}, "1": {"set": "L4096P"}}, tolerance=0.05)
    infos = {name: module.info for name, module in hybrid.private_q_modules.items()}
    assert infos["0"]["set"] == "C32768" and infos["1"]["set"] == "L4096P" and infos["2"]["set"].startswith("C")
    assert infos["1"]["operation"] == "linear"
    x = torch.randn(5, 10)
    close(hybrid(x, fhe="simulate"), hybrid(x, fhe="torch").detach(), 0.1)


def test_linear_siblings_of_a_circuit_still_share():
    """Four modules read the same tensor; three of them are linear."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.mlp = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10), mlp()

        def forward(self, x):
            return self.q(x) + self.k(x) + self.v(x) + self.mlp(x).repeat(1, 3)[:, :10]

    hybrid = HybridFHEModel(Attention().eval(), ["q", "k", "v", "mlp"])
    hybrid.compile_model(torch.randn(50, 10))
    shares = {name: module.shares_with() for name, module in hybrid.private_q_modules.items()}
    assert shares["mlp"] is None and shares["q"] is not None and shares["q"] == shares["k"] == shares["v"]
    x = torch.randn(3, 10)
    close(hybrid(x, fhe="execute"), hybrid(x, fhe="torch").detach(), 0.1)


@pytest.mark.parametrize(
    "part, shape, words",
    [
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), (1, 6, 6), "MaxPool.*AvgPool"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Softmax(-1)), (4,), "Softmax.*client"),
        (lambda: nn.LSTM(4, 4), (3, 4), "outputs"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Flatten(0), nn.ReLU()), (4,), ""),
    ],
)
def test_what_cannot_be_encrypted(part, shape, words):
    with pytest.raises(HemiUnsupportedError, match=words):
        compile_torch_model(part(), torch.randn(30, *shape))


def test_errors_name_the_module():
    with pytest.raises(HemiUnsupportedError, match="module 'part': ONNX: Softmax"):
        hybrid_of(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), torch.randn(30, 4))


def test_too_deep():
    """Says what to do: cut it into several modules."""
    layers = [layer for _ in range(40) for layer in (nn.Linear(4, 4), nn.ReLU())]
    with pytest.raises(HemiUnsupportedError, match="cut it into .* remote modules.* from what follows"):
        compile_torch_model(nn.Sequential(*layers), torch.randn(50, 4), tolerance=0.3)


def test_brevitas_is_not_needed_until_it_is(monkeypatch):
    class Quantiser(nn.ReLU):
        pass

    Quantiser.__module__ = "brevitas.nn.quant_activation"
    for name in ("brevitas", "brevitas.export", "onnxoptimizer"):
        monkeypatch.setitem(sys.modules, name, None)
    part, x = nn.Sequential(nn.Linear(4, 4), Quantiser()), torch.randn(30, 4)
    for attempt in (compile_torch_model, compile_brevitas_qat_model, hybrid_of):
        with pytest.raises(ImportError, match="pip install brevitas"):
            attempt(part, x)


def test_wrong_calibration():
    part = mlp()
    for wrong in (torch.zeros(0, 10), torch.zeros(())):
        with pytest.raises(HemiShapeError):
            compile_torch_model(part, wrong)
    with pytest.raises(HemiArgumentError, match="not a number"):
        compile_torch_model(part, torch.full((5, 10), float("nan")))
    with pytest.raises(HemiArgumentError):
        hybrid_of(part, torch.randn(20, 10))(torch.full((1, 10), float("inf")), fhe="execute")


# ---- the reference system's functions


def test_compile_torch_model():
    part, x = mlp(), torch.randn(100, 10)
    module = compile_torch_model(
        part, (x.numpy(),), False, None, None, False, 8, None, 0.01, None, False, inputs_encryption_status=None, reduce_sum_copy=True, device="cpu"
    )
    reference = part(x).detach().numpy()
    for mode in MODES:
        y = module.forward(x[:3].numpy(), fhe=mode)
        assert isinstance(y, numpy.ndarray) and numpy.abs(y - reference[:3]).max() < 0.05
    q = module.quantize_input(x[:3].double().numpy())
    assert isinstance(q, numpy.ndarray) and q.dtype == numpy.float32
    for mode in ("disable", "execute"):
        y = module.dequantize_output(module.quantized_forward(q, fhe=mode))
        assert numpy.abs(y - reference[:3]).max() < 0.05
    circuit = module.fhe_circuit
    circuit.keygen()
    circuit.keygen(force=True)
    assert numpy.abs(circuit.encrypt_run_decrypt(q) - reference[:3]).max() < 0.05
    assert numpy.abs(circuit.simulate(q) - reference[:3]).max() < 0.05
    assert circuit.size_of_inputs == module.info["upload_bytes"] and min(circuit.statistics.values()) > 10000
    with pytest.raises(HemiShapeError):
        module.quantize_input(numpy.zeros((3, 9)))
    with pytest.raises(HemiUnsupportedError):
        module.forward(x, x)
    for attempt in (copy.deepcopy,):
        with pytest.raises(TypeError):
            attempt(module)


def exported(part, shape):
    file = io.BytesIO()
    torch.onnx.export(part, (torch.zeros(shape),), file)
    return file.getvalue()


class Proto:
    """As much of an onnx.ModelProto as is asked for."""

    def __init__(self, data):
        self.data = data

    def SerializeToString(self):
        return self.data


def test_compile_onnx_model(tmp_path):
    part, x = mlp(), torch.randn(100, 10)
    data = exported(part, (1, 10))
    (tmp_path / "part.onnx").write_bytes(data)
    reference = part(x).detach()
    for model in (data, bytearray(data), Proto(data), tmp_path / "part.onnx", str(tmp_path / "part.onnx")):
        module = compile_onnx_model(model, x, n_bits=8)
        assert module.is_circuit and relative(module(x), reference) < 0.02
    close(module(x[:2], fhe="execute"), reference[:2])
    linear = compile_onnx_model(exported(part[0], (1, 10)), x.numpy())
    assert linear.info["operation"] == "linear"
    close(linear(x[:2], fhe="execute"), part[0](x[:2]).detach())
    with pytest.raises(TypeError, match="ModelProto"):
        compile_onnx_model(3, x)
    with pytest.raises(FileNotFoundError):
        compile_onnx_model(tmp_path / "nothing.onnx", x)
    with pytest.raises(ValueError):
        compile_onnx_model(b"not ONNX", x)


def test_report(capsys):
    x = torch.randn(200, 10)
    for part, activations in ((mlp(), 1), (nn.Sequential(mlp(activation=nn.SiLU), nn.Tanh()), 2)):
        report = compile_torch_model(part, x).bitwidth_and_range_report()
        assert list(report)[0] == "input" and list(report)[-2:] == ["output", "module"]
        entries = list(report.values())[1:-2]
        assert len(entries) >= activations
        for entry in entries:
            low, high = entry["range"]
            assert low < high and 1 <= entry["degree"] <= 127 and 1 <= entry["levels"] <= 7 and entry["size"] in (4, 16)
        assert report["input"]["range"][1] > x.abs().max() and 0 < report["output"]["approximation_error"] <= 0.05
        assert report["module"]["set"].startswith("C") and report["module"]["security_bits"] >= 128
        assert report["module"]["levels"] >= max(entry["levels"] for entry in entries)
    capsys.readouterr()
    compile_torch_model(mlp(), x, verbose=True)
    shown = capsys.readouterr().err
    assert "[#" in shown and "import" in shown and "degree" in shown and "error of approximation" in shown
    report = compile_torch_model(nn.Linear(10, 4), x).bitwidth_and_range_report()
    assert list(report) == ["input", "output", "module"] and report["module"]["operation"] == "linear"
    assert abs(report["input"]["range"][1] - x.abs().max()) < 1e-3


# ---- rows that are out of the range


def test_range_warning(rows):
    x = torch.randn(6, 10)
    x[1] *= 100
    x[4] *= 1000
    with pytest.warns(HemiRangeWarning, match=r"module 'part': [2-6] of 6 rows lie outside") as caught:  # others may suffer with them
        rows(x, fhe="execute")
    assert caught[0].filename == __file__ and issubclass(HemiRangeWarning, UserWarning)
    inside = [0, 2, 3, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows(x[inside], fhe="execute")
        rows(x[inside] * 1e-6, fhe="execute")
    with warnings.catch_warnings():
        warnings.simplefilter("error", HemiRangeWarning)
        with pytest.raises(HemiRangeWarning):
            rows(x, fhe="execute")


# ---- gradients


def test_no_gradient_passes(rows):
    x = torch.randn(2, 10, requires_grad=True)
    for mode in MODES:
        y = rows(x, fhe=mode)
        with pytest.raises(HemiUnsupportedError, match="no gradient passes through module 'part', which has activations"):
            y.sum().backward()
    with torch.no_grad():
        assert not rows(x, fhe="execute").requires_grad
    rows(x, fhe="torch").sum().backward()
    assert x.grad is not None
    with pytest.raises(HemiUnsupportedError, match="backward=True takes Linear and Conv1D"):
        hybrid_of(mlp(), torch.randn(20, 10), backward=True)


# ---- files


def check(result, part, x, limit=0.05):
    alone = x.dim() == 3 and isinstance(part, CNN)
    expected = (part(x[None])[0] if alone else part(x)).detach().numpy()
    assert isinstance(result, numpy.ndarray) and result.dtype == numpy.float32 and result.shape == expected.shape
    assert numpy.abs(result - expected).max() < limit


@pytest.mark.parametrize("make, shapes", [(mlp, [(10,), (5, 10), (2, 3, 10)]), (lambda: CNN().eval(), [(1, 6, 6), (2, 1, 6, 6)])])
def test_deployment(tmp_path, make, shapes):
    torch.manual_seed(5)
    part = make()
    x = torch.randn(100, *shapes[0])
    compiled = compile_torch_model(part, x)
    for _ in range(2):  # safe to repeat
        FHEModelDev(tmp_path / "module", compiled).save(via_mlir=True)
    client, server = FHEModelClient(tmp_path / "module", key_dir=tmp_path / "keys"), FHEModelServer(tmp_path / "module")
    assert client.info["operation"] == "circuit" and not client.info["has_weights"] and server.info["activations"] > 0
    client.generate_private_and_evaluation_keys()
    keys = client.get_serialized_evaluation_keys()
    assert client.get_serialized_evaluation_keys() == keys
    for shape in shapes:
        x = torch.randn(*shape)
        request = client.quantize_encrypt_serialize(x)
        reply = server.run(request, keys)
        assert isinstance(request, bytes) and isinstance(reply, bytes) and len(request) >= client.info["upload_bytes"]
        check(client.deserialize_decrypt_dequantize(reply), part, x)
    again = FHEModelClient(tmp_path / "module", key_dir=tmp_path / "keys")  # the same secret key
    request = again.quantize_encrypt_serialize(x.numpy())
    check(again.deserialize_decrypt(server.run(request, again.get_serialized_evaluation_keys())), part, x)
    with pytest.raises(ValueError):
        client.quantize_encrypt_serialize(numpy.full(x.shape, numpy.nan))
    with pytest.raises(HemiShapeError):
        client.quantize_encrypt_serialize(torch.zeros(*x.shape[:-1], 4))
    request = client.quantize_encrypt_serialize(1000 * x)
    with pytest.warns(HemiRangeWarning, match="lie outside"):
        client.deserialize_decrypt_dequantize(server.run(request, keys))


def test_a_web_server_of_ones_own(tmp_path):
    """HybridFHEModelServer: bytes in, bytes out."""
    part, x = mlp(), torch.randn(100, 10)
    names = ("model", "part", "po_1_10_pc")
    compile_torch_model(part, x).save_shapes(tmp_path / "models" / "model" / "part")
    served = HybridFHEModelServer(tmp_path / "keys", tmp_path / "models", None)
    assert served.list_modules("model") == {"part": {"po_1_10_pc": {}}}
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "client.zip").write_bytes(served.get_client(*names))
    client = FHEModelClient(tmp_path / "client")
    uid = served.add_key(client.get_serialized_evaluation_keys(), *names)["uid"]
    reply = served.compute(client.quantize_encrypt_serialize(x[:3]), uid, *names)
    check(client.deserialize_decrypt_dequantize(reply), part, x[:3])


def test_what_is_saved_is_what_was_compiled(tmp_path):
    """A module that was read computes what the one that was written does."""
    from hemi_fhe import _native

    part, x = mlp(), torch.randn(100, 10)
    compiled = compile_torch_model(part, x)
    compiled.save(tmp_path)
    opened = _native.Module.open(tmp_path, with_weights=True)
    assert {k: v for k, v in opened.info().items()} == compiled.info
    assert opened.activations() == compiled._native.activations()
    y = torch.empty(100, 4)
    opened.run_clear(x.data_ptr(), 100, y.data_ptr(), False)
    assert torch.equal(y, compiled(x))


# ---- over HTTP


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("circuits"), FCSmall, "seq", torch.randn(200, 10))


@pytest.fixture(scope="module")
def server(deployed):
    with serving.hemi_server(deployed.models, "--quiet") as process:
        yield process


@pytest.fixture(scope="module")
def client(deployed, server):
    return deployed.client(server.url)


@pytest.mark.parametrize("shape", [(10,), (7, 10), (2, 3, 10), (0, 10), (600, 10)])
def test_remote(client, deployed, shape):
    x = torch.randn(*shape)
    close(client(x), deployed.float(x).detach(), 0.1)


def test_remote_stats(client, deployed):
    client(torch.randn(3, 10))
    last = client.remote_modules["seq"].last_stats
    assert last["rows"] == 3 and last["requests"] == 1 and last["evaluation_key_bytes"] == 0 and last["rows_out_of_range"] == 0
    assert last["upload_bytes"] > 100000 and last["server_ms"] > 0
    with pytest.warns(HemiRangeWarning, match=r"module 'seq': [1-3] of 3 rows lie outside") as caught:
        client(torch.stack([torch.ones(10), 1000 * torch.ones(10), -torch.ones(10)]))
    assert caught[0].filename.endswith("conftest.py")  # where the model's forward is
    assert 1 <= client.stats()["seq"]["rows_out_of_range"] <= 3


def test_remote_gradient(client):
    y = client(torch.randn(2, 10, requires_grad=True))
    with pytest.raises(HemiUnsupportedError, match="no gradient passes through module 'seq'"):
        y.sum().backward()
    with pytest.raises(HemiUnsupportedError):
        client.remote_modules["seq"].prepare(4)


def test_client_files(deployed, server, tmp_path):
    """Kept and read again, as those of linear modules are."""
    deployed.client(server.url, path_to_clients=tmp_path)
    again = deployed.client(server.url, path_to_clients=tmp_path)
    assert (tmp_path / "seq" / "po_1_10_pc" / "client.zip").is_file()
    x = torch.randn(2, 10)
    close(again(x), deployed.float(x).detach(), 0.1)


def test_progress(deployed, server, capfd):
    client = deployed.client(server.url)
    client._session.verbose = 1
    client(torch.randn(2, 10))
    shown = capfd.readouterr().err
    assert "seq: make keys [#" in shown and re.search(r"seq: upload keys .*MB", shown) and "seq: infer [#" in shown


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    bar = Bar("seq")
    bar("degrees", 1, 4)
    assert capsys.readouterr().err == ""  # a log has a line when a step is done
    bar("degrees", 4, 4)
    assert capsys.readouterr().err == f"  seq: degrees [{30 * '#'}] 4/4\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for done in (0, 1, 2, 2):
        bar("infer", done, 4)
    bar("upload keys", 5000000, 20000000)
    bar.close()
    bar("rows", 512, 512)
    lines = capsys.readouterr().err.split("\n")
    assert [line.count("\r") for line in lines] == [3, 1, 1, 0] and "5.0/20.0 MB" in lines[1] and lines[2].endswith("] 512/512 rows")


def test_threads(rows, deployed, server):
    """Keys, evaluators and the module are shared by threads; connections are not."""
    client, wrong = deployed.client(server.url, prepare=True), []

    def call(seed):
        try:
            for i in range(3):
                x = torch.randn(2, 10, generator=torch.Generator().manual_seed(10 * seed + i))
                close(client(x), deployed.float(x).detach(), 0.1)
                close(rows(x, fhe="execute"), rows(x, fhe="torch").detach(), 0.05)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert client.stats()["seq"]["calls"] == 9


def test_a_model_of_both_kinds(tmp_path):
    """Linear modules, rows with activations and a whole CNN, by one client."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn, self.hidden, self.head = CNN(), nn.Sequential(nn.Linear(5, 10), nn.GELU()), nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.hidden(self.cnn(x)))

    names = ["cnn", "hidden", "head"]
    d = Deployment(tmp_path, Model, names, torch.randn(80, 1, 6, 6), tolerance=0.02)
    with serving.hemi_server(d.models, "--quiet") as s:
        client = d.client(s.url)
        x = torch.randn(3, 1, 6, 6)
        close(client(x), d.float(x).detach(), 0.05)
        close(client(x), d.float(x).detach(), 0.05)
        stats = client.stats()
        assert all(stats[name]["calls"] == 2 for name in names)
        assert stats["cnn"]["evaluation_key_bytes"] > 0


# ---- the seeds' pages, with "seq" as the remote module


@pytest.mark.parametrize("page", [1, 2])
def test_the_pages_with_the_whole_sequence(tmp_path, page):
    """Owner, server and client as three processes, each with what it was given; Linear, ReLU, Linear as one remote module."""
    folders = {}
    for role in ("owner", "server", "client"):
        folders[role] = folder = tmp_path / role
        folder.mkdir()
        text = (ROOT / "examples" / "seeds" / f"page_{page}_{role}.py").read_text()
        text, count = re.subn(r'"seq[._]0"', '"seq"', text)
        text = text.replace("x = torch.randn(20, dim)", "x = torch.rand(20, dim)")  # as calibrated
        assert count
        (folder / f"{role}.py").write_text(text)
    serving.python(folders["owner"] / "owner.py", cwd=folders["owner"])
    shutil.copytree(folders["owner"] / "compiled_models", folders["server"] / "compiled_models")
    shutil.copy(folders["owner"] / "compiled_models" / "FCSmall" / "model.pth", folders["client"])
    command = [serving.sys.executable, folders["server"] / "server.py", serving.PROGRAM]
    with serving.Server(command, cwd=folders["server"]) as process:
        # both pages call with others than they calibrate with
        quiet = {"SERVER": process.url, "PYTHONWARNINGS": "ignore"}
        serving.python(folders["client"] / "client.py", cwd=folders["client"], env=quiet)
    weights = torch.load(folders["owner"] / "float.pth")
    assert torch.load(folders["client"] / "model.pth") == {}
    x, many, one = torch.load(folders["client"] / "results.pth")
    model = FCSmall()
    model.load_state_dict(weights)
    assert many.shape == (20, 10) and one.shape == (10,)
    close(many, model(x).detach())
    close(one, model(x[0]).detach())


# ---- what a client gets, and what stays


def test_client_files_hold_no_private_weight(deployed):
    files = {name: data for name, data in unpacked(deployed.folder).items() if "seq/" in name}
    assert any(name.endswith("client.json") for name in files)
    state = torch.load(deployed.folder / "model.pth", weights_only=True)
    assert not state  # all of it is on the server
    linears = [deployed.float.seq[0], deployed.float.seq[2]]
    everything = torch.cat([t.detach().flatten() for linear in linears for t in (linear.weight, linear.bias)]).tolist()
    patterns = [p for x in everything for p in (struct.pack("<f", x), struct.pack("<d", x), repr(x).encode(), f"{x:.6g}".encode())]
    facts = torch.cat([private_facts(linear) for linear in linears])
    for name, data in files.items():
        assert not [p for p in patterns if p in data], name
        if name.endswith(".json"):
            numbers = numbers_in(json.loads(data))
            assert len(data) < 4096 and len(numbers) < 64  # no room for a table of anything
            for number in numbers:
                if abs(number) > 1e-12:
                    for factor in (1, 127, 128, 1 / 127, 1 / 128):
                        nearest = ((facts - abs(number) * factor).abs() / (facts + 1e-9)).min().item()
                        assert nearest > 1e-7, (name, number)


def test_no_tensor_holds_private_weights(tmp_path):
    torch.manual_seed(77)  # no other model has these weights
    model = FCSmall().eval()
    patterns = [row.numpy().tobytes() for i in (0, 2) for row in model.seq[i].weight.detach().clone()]
    hybrid = HybridFHEModel(model, "seq")
    hybrid.compile_model(torch.randn(100, 10))
    hybrid(torch.randn(2, 10), fhe="execute")
    kept = hybrid.private_modules["seq"]
    assert len(tensors_holding(patterns)) >= 2
    hybrid.save_and_clear_private_info(tmp_path)
    gc.collect()
    assert tensors_holding(patterns) == []
    assert not kept[0].weight.any() and not kept[2].bias.any()
    assert sorted(f.name for f in (tmp_path / "seq" / "po_1_10_pc").iterdir()) == ["client.zip", "server.zip"]

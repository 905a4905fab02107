"""The six modes, in the owner's process."""

import threading

import numpy
import pytest
import torch
from conftest import FCSmall, close
from torch import nn

from hemi_fhe import HemiArgumentError, HemiError, HemiShapeError, HemiStateError, HemiUnsupportedError
from hemi_fhe.torch.compile import compile_torch_model
from hemi_fhe.torch.hybrid_model import HybridFHEMode, HybridFHEModel


@pytest.fixture(scope="module")
def compiled():
    torch.manual_seed(2)
    model = FCSmall(12, 7).eval()
    hybrid = HybridFHEModel(model, ["seq.0", "seq.2"])
    hybrid.compile_model(torch.randn(300, 12), n_bits=8)
    return hybrid


@pytest.fixture
def hybrid(compiled):
    yield compiled
    compiled.set_fhe_mode("disable")


def test_modes_agree(hybrid):
    x = torch.randn(40, 12)
    exact = hybrid(x, fhe="torch").detach()
    close(hybrid(x, fhe="disable"), exact)
    close(hybrid(x, fhe="simulate"), exact)
    close(hybrid(x, fhe="execute"), exact)
    assert torch.equal(hybrid(x, fhe="calibrate").detach(), exact)
    assert torch.equal(hybrid(x, fhe="disable"), hybrid(x, fhe="disable"))


def test_noise_is_as_predicted():
    torch.manual_seed(3)
    hybrid = HybridFHEModel(nn.Sequential(nn.Linear(64, 48, bias=False)), "0")
    x = torch.randn(400, 64)
    hybrid.compile_model(x)
    predicted = hybrid.private_q_modules["0"].info["predicted_error"]
    clear = hybrid(x, fhe="disable")
    for mode in ("simulate", "execute"):
        noise = hybrid(x, fhe=mode) - clear
        assert predicted / 2 < noise.std().item() < 2 * predicted, mode
        assert abs(noise.mean().item()) < predicted / 4
    assert not torch.equal(hybrid(x, fhe="execute"), hybrid(x, fhe="execute"))


def test_default_mode(model):
    hybrid = HybridFHEModel(model, "seq.0")
    remote = hybrid.remote_modules["seq.0"]
    assert remote.fhe_local_mode is HybridFHEMode.TORCH
    hybrid.compile_model(torch.randn(50, 10))
    assert remote.fhe_local_mode is HybridFHEMode.DISABLE
    again = HybridFHEModel(model, "seq.0", server_remote_address="http://127.0.0.1:1")
    assert again.remote_modules["seq.0"].fhe_local_mode is HybridFHEMode.REMOTE


@pytest.mark.parametrize("mode", ["simulate", HybridFHEMode.SIMULATE, "SIMULATE"])
def test_mode_persists(hybrid, mode):
    x = torch.randn(5, 12)
    clear = hybrid(x, fhe="disable")
    hybrid.set_fhe_mode(mode)
    for _ in range(3):
        assert not torch.equal(hybrid(x), clear)
        assert all(m.fhe_local_mode is HybridFHEMode.SIMULATE for m in hybrid.remote_modules.values())
    assert torch.equal(hybrid(x, fhe="disable"), clear)  # this call only
    assert all(m.fhe_local_mode is HybridFHEMode.SIMULATE for m in hybrid.remote_modules.values())
    assert not torch.equal(hybrid(x), clear)
    assert not torch.equal(hybrid.model(x), clear)  # the model itself behaves the same


def test_mode_of_one_module(hybrid):
    x = torch.randn(5, 12)
    for module in hybrid.remote_modules.values():
        module.fhe_local_mode = HybridFHEMode.TORCH
    exact = hybrid(x).detach()
    hybrid.remote_modules["seq.0"].fhe_local_mode = "disable"
    mixed = hybrid(x).detach()
    assert not torch.equal(mixed, exact)
    close(mixed, exact)


def test_override_is_of_its_thread(hybrid):
    x = torch.randn(3, 12)
    clear = hybrid(x, fhe="disable")
    wrong = []

    def call(mode, same):
        for _ in range(100):
            if torch.equal(hybrid(x, fhe=mode), clear) != same:
                wrong.append(mode)

    threads = [threading.Thread(target=call, args=a) for a in [("disable", True), ("simulate", False)] * 2]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_unknown_mode(hybrid):
    for wrong in ("encrypted", None and "", 3):
        with pytest.raises(ValueError, match="simulate"):
            hybrid.set_fhe_mode(wrong)
    with pytest.raises(ValueError):
        hybrid(torch.randn(1, 12), fhe="clear")


def test_an_error_leaves_the_mode(hybrid):
    with pytest.raises(ValueError):
        hybrid(torch.randn(1, 13), fhe="simulate")
    assert hybrid.remote_modules["seq.0"].fhe_local_mode is HybridFHEMode.DISABLE
    x = torch.randn(1, 12)
    assert torch.equal(hybrid(x), hybrid(x))


@pytest.mark.parametrize("mode", ["disable", "simulate", "execute"])
@pytest.mark.parametrize("shape", [(12,), (1, 12), (33, 12), (2, 3, 12), (1, 1, 2, 12), (0, 12), (2, 0, 12)])
def test_ranks_and_rows(hybrid, mode, shape):
    x = torch.randn(*shape)
    close(hybrid(x, fhe=mode), hybrid(x, fhe="torch").detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_dtype_comes_back(hybrid, dtype):
    module = hybrid.remote_modules["seq.0"]
    x = torch.randn(4, 12).to(dtype)
    assert module(x).dtype is dtype
    expected = nn.functional.linear(x.float(), module.private_module.weight, module.private_module.bias)
    assert (module(x).float() - expected).abs().max() < 0.1
    assert module(torch.randint(-3, 3, (4, 12))).dtype is torch.float32


def test_strided_inputs(hybrid):
    module = hybrid.remote_modules["seq.0"]
    base = torch.randn(12, 24, 5)
    for x in (base[:, ::2, 0].t().t(), base[:, :12, 1], base[:, :, 0].t(), base[0, :12, 2].expand(4, 12), base.permute(2, 1, 0)):
        assert torch.equal(module(x), module(x.contiguous().clone()))


def test_inputs_are_left_alone(hybrid):
    x = torch.randn(6, 12, requires_grad=True)
    before = x.detach().clone()
    hybrid(x, fhe="execute")
    assert torch.equal(x.detach(), before)


def test_outside_the_calibrated_range():
    """The reference system clips such inputs; here each row has its own scale."""
    torch.manual_seed(4)
    linear = nn.Linear(20, 20).eval()
    hybrid = HybridFHEModel(nn.Sequential(linear), "0")
    hybrid.compile_model(torch.rand(100, 20) - 0.5)
    for factor in (1e-3, 1, 100, 1e5):
        x = (torch.rand(10, 20) - 0.5) * factor
        exact = hybrid(x, fhe="torch").detach()
        tolerance = 0.02 * (exact - linear.bias.detach()).abs().max().item() + 1e-3
        for mode in ("disable", "execute"):
            close(hybrid(x, fhe=mode), exact, tolerance)
    mixed = torch.rand(4, 20) * torch.tensor([[1e-3], [1.0], [1e3], [0.0]])
    out, exact = hybrid(mixed, fhe="execute"), hybrid(mixed, fhe="torch").detach()
    for i, size in enumerate([1e-3, 1.0, 1e3, 1e-3]):
        assert (out[i] - exact[i]).abs().max() < 0.05 * max(size, 0.1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(hybrid, bad):
    x = torch.randn(2, 12)
    x[1, 3] = bad
    with pytest.raises(HemiArgumentError):
        hybrid(x, fhe="execute")


def test_wrong_features(hybrid):
    for shape in [(13,), (2, 11), (12, 1), ()]:
        with pytest.raises(HemiShapeError) as raised:
            hybrid.remote_modules["seq.0"](torch.zeros(shape))
        assert "12 features" in str(raised.value) and "seq.0" not in str(type(raised.value))
        assert isinstance(raised.value, ValueError) and isinstance(raised.value, HemiError)


def test_several_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            return self.two(x, x)

    hybrid = HybridFHEModel(Model(), "two")
    with pytest.raises(HemiUnsupportedError, match="one tensor"):
        hybrid.compile_model(torch.zeros(3, 3))


def test_before_compilation(model):
    hybrid = HybridFHEModel(model, "seq.0")
    for mode in ("disable", "simulate", "execute"):
        with pytest.raises(HemiStateError, match="compile_model"):
            hybrid(torch.zeros(1, 10), fhe=mode)
    hybrid(torch.zeros(1, 10), fhe="torch")


def test_calibrate_records(model):
    hybrid = HybridFHEModel(model, "seq.0")
    hybrid.set_fhe_mode(HybridFHEMode.CALIBRATE)
    for _ in range(3):
        hybrid(torch.randn(20, 10))
    hybrid.set_fhe_mode("disable")
    hybrid.compile_model(None)
    x = torch.randn(5, 10)
    close(hybrid(x), hybrid(x, fhe="torch").detach())


@pytest.mark.parametrize("n_bits", [2, 4, 8, 12, None, {"op_weights": 8, "op_inputs": 6}, {"model_inputs": 10}])
def test_n_bits(model, n_bits):
    hybrid = HybridFHEModel(model, "seq.0")
    hybrid.compile_model(torch.randn(100, 10), n_bits=n_bits)
    info = hybrid.private_q_modules["seq.0"].info
    if isinstance(n_bits, int):
        assert info["weight_bits"] == n_bits
    if isinstance(n_bits, dict) and "op_weights" in n_bits:
        assert (info["weight_bits"], info["input_bits"]) == (8, 6)
    x = torch.randn(20, 10)
    error = (hybrid(x, fhe="execute") - hybrid(x, fhe="torch")).abs().max().item()
    assert error < {2: 2, 4: 0.5}.get(n_bits, 0.1) if isinstance(n_bits, int) else error < 0.2


@pytest.mark.parametrize("n_bits", [1, 17, -3, 2.5, True, "8", {"weight": 8}])
def test_wrong_n_bits(model, n_bits):
    with pytest.raises((ValueError, TypeError)):
        HybridFHEModel(model, "seq.0").compile_model(torch.randn(10, 10), n_bits=n_bits)


def test_more_bits_are_more_accurate():
    torch.manual_seed(5)
    model, x = nn.Sequential(nn.Linear(32, 32)), torch.randn(100, 32)
    errors = []
    for n_bits in (3, 5, 8):
        hybrid = HybridFHEModel(model, "0")
        hybrid.compile_model(x, n_bits=n_bits)
        errors.append((hybrid(x, fhe="execute") - hybrid(x, fhe="torch")).abs().mean().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_configuration(model):
    hybrid = HybridFHEModel(model, "seq.0")
    hybrid.compile_model(torch.randn(20, 10), configuration={"layout": 64})
    assert hybrid.configuration == {"layout": 64}
    assert hybrid.private_q_modules["seq.0"].info["layout"] == 64
    for wrong in ({"layers": 3}, 7, {"layout": 63}):
        with pytest.raises(ValueError):
            hybrid.compile_model(torch.randn(20, 10), configuration=wrong)


def test_arguments_of_the_reference_system(model):
    HybridFHEModel(model, "seq.0", verbose=0).compile_model(
        torch.randn(20, 10), 8, None, 0.01, device="cpu", configuration=None, use_dynamic_quantization=True
    )


def test_verbose_shows_progress(model, capsys):
    HybridFHEModel(model, "seq.0", verbose=1).compile_model(torch.randn(20, 10))
    assert "seq.0" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(10,), (1, 10), (4, 3, 10), (2, 2, 2, 10)])
def test_calibration_shapes(model, shape):
    hybrid = HybridFHEModel(model, "seq.0")
    hybrid.compile_model(torch.randn(*shape))
    expected = (1, 10) if len(shape) == 1 else (1,) + shape[1:]
    assert hybrid.private_q_modules["seq.0"].input_shape == expected
    x = torch.randn(3, 10)
    close(hybrid(x, fhe="disable"), hybrid(x, fhe="torch").detach(), 0.5)


def test_module_called_several_times():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            return self.fc(torch.tanh(self.fc(x)).reshape(-1, 2, 6))

    torch.manual_seed(6)
    hybrid = HybridFHEModel(Twice(), "fc")
    x = torch.randn(8, 6)
    hybrid.compile_model(x)
    close(hybrid(x, fhe="execute"), hybrid(x, fhe="torch").detach())


def test_module_never_called(model):
    model.unused = nn.Linear(3, 3)
    with pytest.raises(HemiStateError, match="unused"):
        HybridFHEModel(model, "unused").compile_model(torch.zeros(2, 10))


def test_calibration_leaves_the_model_as_it_was():
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 5))
    model.train()
    model[2].eval()
    mean = model[1].running_mean.clone()
    hybrid = HybridFHEModel(model, ["0", "3"])
    hybrid.compile_model(torch.randn(30, 5))
    assert torch.equal(model[1].running_mean, mean)
    assert model.training and model[1].training and not model[2].training and hybrid.private_modules["0"].training


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_modules_of_other_types(dtype):
    torch.manual_seed(8)
    model = nn.Sequential(nn.Linear(9, 4)).to(dtype)
    before = model[0].weight.detach().clone()
    hybrid = HybridFHEModel(model, "0")
    x = torch.randn(30, 9).to(dtype)
    exact = nn.functional.linear(x.double(), model[0].private_module.weight.double(), model[0].private_module.bias.double()).detach()
    if dtype is torch.float16:  # torch cannot multiply float16 on every processor
        model[0]._records.append(x.float())
        hybrid.compile_model(None)
    else:
        hybrid.compile_model(x)
    assert torch.equal(hybrid.private_modules["0"].weight, before)
    assert (hybrid(x, fhe="execute").double() - exact).abs().max() < 0.05


def test_without_bias():
    torch.manual_seed(9)
    hybrid = HybridFHEModel(FCSmall(8, bias=False).eval(), "seq.0")
    x = torch.randn(50, 8)
    hybrid.compile_model(x)
    close(hybrid(x, fhe="execute"), hybrid(x, fhe="torch").detach())


def test_larger_layers_need_key_switching():
    torch.manual_seed(10)
    hybrid = HybridFHEModel(nn.Sequential(nn.Linear(200, 150)), "0")
    x = torch.randn(60, 200)
    hybrid.compile_model(x)
    assert hybrid.private_q_modules["0"].info["automorphisms"] > 0
    close(hybrid(x[:5], fhe="execute"), hybrid(x[:5], fhe="torch").detach())


@pytest.mark.parametrize("part, name", [(nn.Softmax(-1), "Softmax"), (nn.LogSoftmax(-1), "LogSoftmax"), (nn.MaxPool1d(2), "MaxPool")])
def test_what_cannot_be_encrypted(part, name):
    hybrid = HybridFHEModel(nn.Sequential(nn.Sequential(nn.Linear(4, 4), part)), "0")
    with pytest.raises(HemiUnsupportedError, match=f"{name}.*client"):
        hybrid.compile_model(torch.randn(10, 4))


def test_compile_torch_model(model):
    x = torch.randn(100, 10)
    module = compile_torch_model(model.seq[0], x, n_bits=8)
    exact = model.seq[0](x).detach()
    for mode in ("disable", "simulate", "execute"):
        close(module(x, fhe=mode), exact)
        result = module.forward(x.numpy(), fhe=mode)
        assert isinstance(result, numpy.ndarray) and numpy.abs(result - exact.numpy()).max() < 0.05
    close(compile_torch_model(model.seq[0], (x.numpy(),))(x), exact)
    for wrong in ("remote", "torch"):
        with pytest.raises(ValueError):
            module(x, fhe=wrong)
    with pytest.raises(HemiUnsupportedError):
        compile_torch_model(model.seq[0], (x, x))
    with pytest.raises(TypeError):
        compile_torch_model("model", x)


def test_execution_from_threads(hybrid):
    x = torch.randn(6, 12)
    exact = hybrid(x, fhe="torch").detach()
    errors = []

    def call():
        try:
            for _ in range(5):
                close(hybrid(x, fhe="execute"), exact)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors

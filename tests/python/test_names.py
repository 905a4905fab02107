"""Naming modules, wrapping and rewrapping, the names of shapes."""

import subprocess
import sys
import types

import pytest
import torch
from conftest import ROOT, Conv1D, FCSmall, close
from torch import nn

from hemi_fhe.torch import hybrid_model
from hemi_fhe.torch.hybrid_model import (
    HybridFHEMode,
    HybridFHEModel,
    RemoteModule,
    convert_conv1d_to_linear,
    tuple_to_underscore_str,
    underscore_str_to_tuple,
)


def test_shape_names():
    assert tuple_to_underscore_str((1, 10)) == "po_1_10_pc"
    assert tuple_to_underscore_str(torch.Size([1, 10])) == "po_1_10_pc"
    assert tuple_to_underscore_str((1,) + torch.zeros(7, 3, 5).shape[1:]) == "po_1_3_5_pc"
    assert tuple_to_underscore_str((5,)) == "po_5_pc"
    for shape in [(1, 10), (5,), (1, 2, 3, 4), ()]:
        assert underscore_str_to_tuple(tuple_to_underscore_str(shape)) == shape
    for bad in ["", "po_1_10", "po_1_x_pc", "../po_1_pc"]:
        with pytest.raises(ValueError):
            underscore_str_to_tuple(bad)


def test_exports():
    from hemi_fhe.common.utils import HybridFHEMode as original

    assert HybridFHEMode is original is hybrid_model.HybridFHEMode
    assert {m.name for m in HybridFHEMode} == {"DISABLE", "TORCH", "CALIBRATE", "SIMULATE", "EXECUTE", "REMOTE"}
    assert hybrid_model.HybridFHEModelServer is not None


def test_page_names(model):
    assert [k for k, _ in model.named_modules()] == ["", "seq", "seq.0", "seq.1", "seq.2"]
    hybrid = HybridFHEModel(model, ["seq_0"])
    assert list(hybrid.remote_modules) == ["seq_0"] == hybrid.module_names
    assert isinstance(model.seq[0], RemoteModule) and model.seq[0] is hybrid.remote_modules["seq_0"]
    assert isinstance(hybrid.private_modules["seq_0"], nn.Linear)
    assert hybrid.model is model


@pytest.mark.parametrize("names", ["seq.0", ["seq.0"], ("seq_0",), ["seq.0", "seq_2"]])
def test_one_name_or_several(model, names):
    hybrid = HybridFHEModel(model, names)
    assert len(hybrid.remote_modules) == (1 if isinstance(names, str) else len(names))


def test_exact_name_before_alias():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.seq = nn.Sequential(nn.Linear(2, 2))
            self.seq_0 = nn.Linear(3, 3)

    model = Model()
    HybridFHEModel(model, "seq_0")
    assert isinstance(model.seq_0, RemoteModule) and isinstance(model.seq[0], nn.Linear)


def test_ambiguous_alias():
    model = nn.Sequential()
    model.add_module("a_b", nn.Sequential(nn.Linear(2, 2)))
    model.add_module("a", nn.ModuleDict({"b": nn.ModuleDict({"0": nn.Linear(2, 2)}), "b_0": nn.Linear(2, 2)}))
    with pytest.raises(ValueError, match="exact name"):
        HybridFHEModel(model, "a_b_0")


@pytest.mark.parametrize("name", ["seq.9", "nothing", "seq.0.weight"])
def test_missing_module(model, name):
    with pytest.raises(ValueError) as raised:
        HybridFHEModel(model, [name])
    assert repr(name) in str(raised.value)
    for known in ("'seq'", "'seq.0'", "'seq.1'", "'seq.2'"):
        assert known in str(raised.value)
    assert isinstance(model.seq[0], nn.Linear)  # nothing was changed


def test_wrong_arguments(model):
    for wrong in (None, lambda x: x, "model", FCSmall):
        with pytest.raises(TypeError):
            HybridFHEModel(wrong, "seq.0")
    with pytest.raises(TypeError):
        HybridFHEModel(model, [0])
    for names in ([], "", ["seq.0", "seq_0"], ["seq", "seq.0"]):
        with pytest.raises(ValueError):
            HybridFHEModel(model, names)


def test_name_that_is_no_folder():
    model = nn.ModuleDict({"a/b": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="cannot be the name"):
        HybridFHEModel(model, "a/b")


def test_rewrap_never_nests(model):
    linear = model.seq[0]
    first = HybridFHEModel(model, "seq.0")
    second = HybridFHEModel(model, "seq_0", server_remote_address="http://127.0.0.1:1")
    third = HybridFHEModel(model, ["seq.0", "seq.2"])
    assert model.seq[0] is third.remote_modules["seq.0"] is not first.remote_modules["seq.0"]
    assert third.private_modules["seq.0"] is linear
    assert second.remote_modules["seq_0"] is not model.seq[0]
    assert sum(isinstance(m, RemoteModule) for m in model.modules()) == 2


def test_rewrap_around_a_wrapped_module(model):
    linear = model.seq[0]
    HybridFHEModel(model, "seq.0")
    outer = HybridFHEModel(model, "seq")
    assert outer.private_modules["seq"][0] is linear
    assert not any(isinstance(m, RemoteModule) for m in outer.private_modules["seq"].modules())


def test_rewrap_keeps_what_was_compiled(model):
    x = torch.randn(50, 10)
    first = HybridFHEModel(model, "seq.0")
    first.compile_model(x)
    expected = first(x, fhe="disable")
    second = HybridFHEModel(model, "seq.0")
    assert torch.equal(second(x, fhe="disable"), expected)


def test_private_weights_are_in_no_state_dict(model):
    hybrid = HybridFHEModel(model, "seq.0")
    assert set(model.state_dict()) == {"seq.2.weight", "seq.2.bias"}
    assert {n for n, _ in model.named_parameters()} == {"seq.2.weight", "seq.2.bias"}
    model.double()  # ... but the private module goes along
    assert hybrid.private_modules["seq.0"].weight.dtype is torch.float64
    model.train()
    assert hybrid.private_modules["seq.0"].training
    model.eval()
    assert not hybrid.private_modules["seq.0"].training


def test_pickling_a_wrapped_model_is_refused(model, tmp_path):
    import copy
    import pickle

    HybridFHEModel(model, "seq.0")
    for attempt in (lambda: copy.deepcopy(model), lambda: pickle.dumps(model), lambda: torch.save(model, tmp_path / "m.pth")):
        with pytest.raises(TypeError, match="state_dict"):
            attempt()


def test_conv1d_becomes_linear():
    conv = Conv1D(6, 4)
    x = torch.randn(3, 4)
    expected = x @ conv.weight + conv.bias
    close(convert_conv1d_to_linear(conv)(x), expected, 1e-5)
    holder = nn.ModuleDict({"a": nn.Sequential(conv), "b": nn.ReLU()})
    assert convert_conv1d_to_linear(holder) is holder
    assert isinstance(holder["a"][0], nn.Linear)
    assert isinstance(types.SimpleNamespace(x=convert_conv1d_to_linear(nn.ReLU())).x, nn.ReLU)


def test_import_is_quick_and_without_torch():
    code = "import hemi_fhe, hemi_fhe.deployment, hemi_fhe.common.utils, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    assert done.stdout.split() == [b"False", b"False"]


def test_publish_to_hub_is_explained(model):
    with pytest.raises(NotImplementedError, match="server.zip"):
        HybridFHEModel(model, "seq.0").publish_to_hub()

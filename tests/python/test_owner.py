"""Saving and clearing: what is written, what the client gets, what stays in memory."""

import ctypes
import gc
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Deployment, FCSmall, close
from torch import nn

from hemi_fhe import HemiStateError, HemiUnsupportedError
from hemi_fhe.torch.hybrid_model import HybridFHEModel


def files_below(folder):
    return {str(f.relative_to(folder)) for f in Path(folder).rglob("*") if f.is_file()}


def compiled(model, names, dim=10):
    hybrid = HybridFHEModel(model, names)
    hybrid.compile_model(torch.randn(100, dim))
    return hybrid


def test_files(model, tmp_path):
    folder = tmp_path / "not" / "there" / "yet" / "FCSmall"
    hybrid = compiled(model, ["seq_0", "seq.2"])
    hybrid.save_and_clear_private_info(folder, via_mlir=True)
    assert files_below(folder) == {
        "model.pth",
        "seq_0/po_1_10_pc/client.zip",
        "seq_0/po_1_10_pc/server.zip",
        "seq.2/po_1_10_pc/client.zip",
        "seq.2/po_1_10_pc/server.zip",
    }
    with zipfile.ZipFile(folder / "seq_0/po_1_10_pc/client.zip") as z:
        assert z.namelist() == ["client.json"]
    with zipfile.ZipFile(folder / "seq_0/po_1_10_pc/server.zip") as z:
        assert sorted(z.namelist()) == ["server.json", "weights.safetensors"]


def test_str_path(model, tmp_path):
    compiled(model, "seq.0").save_and_clear_private_info(str(tmp_path / "m"))
    assert (tmp_path / "m" / "model.pth").is_file()


def test_save_before_compile(model, tmp_path):
    hybrid = HybridFHEModel(model, "seq.0")
    with pytest.raises(HemiStateError, match=r"seq\.0.*compile_model"):
        hybrid.save_and_clear_private_info(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert isinstance(hybrid.private_modules["seq.0"], nn.Linear)


def test_client_model_loads_into_the_plain_model(model, tmp_path):
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    compiled(model, "seq.0").save_and_clear_private_info(tmp_path)
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    assert set(state) == {"seq.2.weight", "seq.2.bias"}
    plain = FCSmall()
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert set(missing) == {"seq.0.weight", "seq.0.bias"} and not unexpected
    assert all(torch.equal(plain.state_dict()[k], kept[k]) for k in state)


def test_client_model_has_no_memory_behind_its_views(tmp_path):
    """A saved view brings its whole storage along."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("view", torch.arange(100000.0)[:3])

        def forward(self, x):
            return self.fc(x)

    compiled(Model(), "fc", 4).save_and_clear_private_info(tmp_path)
    assert (tmp_path / "model.pth").stat().st_size < 10000


def test_saving_twice(model, tmp_path):
    hybrid = compiled(model, "seq.0")
    hybrid.save_and_clear_private_info(tmp_path / "m")
    before = {f: (tmp_path / "m" / f).read_bytes() for f in files_below(tmp_path / "m")}
    for where in ("m", "other"):
        with pytest.raises(HemiStateError, match="already saved"):
            hybrid.save_and_clear_private_info(tmp_path / where)
    assert {f: (tmp_path / "m" / f).read_bytes() for f in files_below(tmp_path / "m")} == before
    assert not (tmp_path / "other").exists()
    with pytest.raises(HemiStateError, match="cleared"):
        hybrid.compile_model(torch.randn(5, 10))


def test_saving_again_after_building_again(tmp_path):
    torch.manual_seed(0)
    for shape in [(50, 10), (50, 10), (20, 3, 10)]:
        hybrid = HybridFHEModel(FCSmall().eval(), "seq.0")
        hybrid.compile_model(torch.randn(*shape))
        hybrid.save_and_clear_private_info(tmp_path)
    # the replaced shape is not served beside the new one; nothing temporary is left
    assert files_below(tmp_path) == {"model.pth", "seq.0/po_1_3_10_pc/client.zip", "seq.0/po_1_3_10_pc/server.zip"}
    other = HybridFHEModel(FCSmall().eval(), "seq.2")
    other.compile_model(torch.randn(50, 10))
    with pytest.warns(UserWarning, match=r"seq\.0"):
        other.save_and_clear_private_info(tmp_path)


def test_failure_while_saving_keeps_the_weights(model, tmp_path):
    hybrid = compiled(model, "seq.0")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "seq.0").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        hybrid.save_and_clear_private_info(tmp_path / "m")
    assert hybrid.private_modules["seq.0"].weight.abs().sum() > 0
    hybrid.save_and_clear_private_info(tmp_path / "n")


def test_modes_after_clearing(model, tmp_path):
    hybrid = compiled(model, "seq.0")
    hybrid.set_fhe_mode("disable")
    hybrid.save_and_clear_private_info(tmp_path)
    for mode in ("torch", "disable", "simulate", "execute", "calibrate", None):
        with pytest.raises(HemiStateError, match="cleared"):
            hybrid(torch.zeros(1, 10), fhe=mode)
    with pytest.raises(HemiStateError, match="server_remote_address"):
        hybrid(torch.zeros(1, 10), fhe="remote")


# ---- tied weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))


def test_tied_weights_are_refused(tmp_path):
    model = Tied()
    before = model.head.weight.detach().clone()
    hybrid = HybridFHEModel(model, "head")
    with pytest.raises(HemiUnsupportedError) as raised:
        hybrid.compile_model(torch.randint(10, (20,)))
    assert "head" in str(raised.value) and "embedding.weight" in str(raised.value) and "tied" in str(raised.value)
    assert torch.equal(hybrid.private_modules["head"].weight, before)


def test_tying_after_compilation_is_refused_too(model, tmp_path):
    hybrid = compiled(model, "seq.0")
    model.register_buffer("copy", hybrid.private_modules["seq.0"].weight.detach()[2:5])  # a view
    with pytest.raises(HemiUnsupportedError, match="copy"):
        hybrid.save_and_clear_private_info(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_module_under_two_names_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    with pytest.raises(HemiUnsupportedError, match="tied"):
        HybridFHEModel(Model(), "a").compile_model(torch.randn(9, 4))
    hybrid = HybridFHEModel(Model(), ["a", "b"])  # both remote: nothing stays local
    hybrid.compile_model(torch.randn(9, 4))


def test_weights_tied_between_private_modules_are_fine(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    compiled(model, ["0", "1"], 4).save_and_clear_private_info(tmp_path)


# ---- what a client gets holds no private weight


def unpacked(folder):
    """{name: bytes} of all that a client gets, archives opened."""
    found = {}
    for name in files_below(folder):
        if name.endswith("server.zip"):
            continue
        data = (Path(folder) / name).read_bytes()
        found[name] = data
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as z:
                found.update({f"{name}/{inner}": z.read(inner) for inner in z.namelist()})
    return found


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for v in value for n in numbers_in(v)]
    return [float(value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def private_facts(linear):
    """Numbers that say something about single private weights."""
    w, b = linear.weight.detach().double(), linear.bias.detach().double()
    facts = [w.flatten(), b, w.sum(1), w.sum(0), w.abs().amax(1), w.norm(dim=1)]
    return torch.cat(facts).abs()


def test_client_files_hold_no_private_weight(small):
    files = unpacked(small.folder)
    assert any(name.endswith("client.json") for name in files)
    linear = small.float.seq[0]
    everything = torch.cat([linear.weight.detach().flatten(), linear.bias.detach()])
    patterns = [p for x in everything.tolist() for p in (struct.pack("<f", x), struct.pack("<d", x))]
    patterns += [repr(x).encode() for x in everything.tolist()] + [f"{x:.6g}".encode() for x in everything.tolist()]
    # that the search finds what is there: the local weights are in model.pth
    local = struct.pack("<f", small.float.seq[2].weight[0, 0].item())
    assert any(local in data for data in files.values())
    for name, data in files.items():
        assert not [p for p in patterns if p in data], name
    facts = private_facts(linear)
    for name, data in files.items():
        if name.endswith(".json"):
            for number in numbers_in(json.loads(data)):
                if abs(number) > 1e-12:
                    for factor in (1, 127, 128, 1 / 127, 1 / 128):
                        nearest = ((facts - abs(number) * factor).abs() / (facts + 1e-9)).min().item()
                        assert nearest > 1e-7, (name, number)
            assert len(data) < 4096  # no room for a table of anything


def test_one_scale_for_all_outputs(small):
    """Per-channel scales would tell the largest weight of every output."""
    for name, data in unpacked(small.folder).items():
        if name.endswith("client.json"):
            lists = re.findall(rb"\[[^\]\[]*\]", data)
            assert all(text.count(b",") < 8 for text in lists), data


def test_client_file_of_equal_weights_differs_in_nothing_but_its_id(tmp_path):
    """No hash of the weights, or anything else that depends on them, beyond the scale: permuted weights, equal files."""
    torch.manual_seed(0)
    weight, x = torch.randn(6, 10), torch.randn(50, 10)
    files = []
    for i, w in enumerate([weight, weight.flip(0)]):
        model = nn.Sequential(nn.Linear(10, 6, bias=False))
        model[0].weight.data = w.clone()
        hybrid = HybridFHEModel(model, "0")
        hybrid.compile_model(x)
        ident = hybrid.private_q_modules["0"].info["id"]
        hybrid.save_and_clear_private_info(tmp_path / str(i))
        with zipfile.ZipFile(tmp_path / str(i) / "0/po_1_10_pc/client.zip") as z:
            files.append(z.read("client.json").replace(ident.encode(), b"ID"))
            assert b"ID" in files[-1]
    assert files[0] == files[1]


# ---- what stays in memory


def tensors_holding(patterns):
    """Tensors that the garbage collector knows and that hold one of these rows."""
    found = []
    for thing in gc.get_objects():
        try:
            if not isinstance(thing, torch.Tensor) or thing.numel() < 4:
                continue
            data = bytes(thing.detach().to(torch.float32).contiguous().numpy())
        except Exception:
            continue
        if any(p in data for p in patterns):
            found.append(thing)
    return found


def test_no_tensor_holds_private_weights(model, tmp_path):
    patterns = [row.numpy().tobytes() for row in model.seq[0].weight.detach().clone()]
    hybrid = compiled(model, "seq.0")
    kept = hybrid.private_modules["seq.0"]  # even a reference of the user's own
    state = kept.state_dict()
    kept.weight.grad = kept.weight.detach().clone()
    assert len(tensors_holding(patterns)) >= 2
    hybrid.save_and_clear_private_info(tmp_path)
    gc.collect()
    assert tensors_holding(patterns) == []
    assert not kept.weight.any() and not kept.bias.any() and not state["weight"].any() and kept.weight.grad is None
    assert hybrid.private_modules == {"seq.0": None} and hybrid.private_q_modules == {}
    assert model.seq[0].private_module is None and model.seq[0].private_q_module is None


MEMORY = """
import sys
sys.path[:0] = [{tests!r}, {python!r}]
import gc, memory, torch
from torch import nn
from hemi_fhe.torch.hybrid_model import HybridFHEModel
torch.manual_seed(11)
import conftest
model = nn.Sequential({module}, nn.ReLU(), nn.Linear({dim}, {dim}))
patterns = memory.reversed_rows(model[0].weight)
turned = model[0].weight.detach().T.contiguous()
patterns += memory.reversed_rows(turned)
turned.zero_()
inputs = torch.randn(37, {dim})
recorded = memory.reversed_rows(inputs)
hybrid = HybridFHEModel(model, ["0"])
hybrid.compile_model(inputs, backward={backward})
hybrid(inputs[:2], fhe="disable"); hybrid(inputs[:2], fhe="execute")
inputs.zero_()  # the user's own
print(memory.count(patterns))
hybrid.save_and_clear_private_info({folder!r})
gc.collect()
print(memory.count(patterns), memory.count(recorded))
"""


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("module, dim", [("nn.Linear({dim}, {dim})", 16), ("nn.Linear({dim}, {dim})", 300), ("conftest.Conv1D({dim}, {dim})", 300)])
def test_no_private_weight_is_left_in_the_process(tmp_path, module, dim, backward):
    """Looks through all writable memory of a process that compiled, ran, saved and cleared."""
    code = MEMORY.format(
        tests=str(ROOT / "tests/python"),
        python=str(ROOT / "python"),
        folder=str(tmp_path / "m"),
        module=module.format(dim=dim),
        dim=dim,
        backward=backward,
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, universal_newlines=True)
    before, after, inputs = map(int, done.stdout.split())
    assert before >= 8  # the search finds what is there
    assert after == 0
    assert inputs == 0


# what another process reads in server.zip: the beginnings of rows of the integer weights, reversed
INTEGERS = """
import glob, json, struct, sys, zipfile
raw = zipfile.ZipFile(glob.glob(sys.argv[1] + "/0/*/server.zip")[0]).read("weights.safetensors")
header = struct.unpack("<Q", raw[:8])[0]
weight = json.loads(raw[8:8 + header])["weight"]
rows, taps, columns = weight["shape"]
data = raw[8 + header + weight["data_offsets"][0]:]
print(" ".join(data[2 * columns * i:2 * columns * i + 16][::-1].hex() for i in range(0, rows, rows // 8)))
"""

INTEGERS_LEFT = """
import sys
sys.path[:0] = [{tests!r}, {python!r}]
import gc, memory, subprocess, torch
from hemi_fhe.torch.hybrid_model import HybridFHEModel
model = torch.nn.Sequential(torch.nn.Linear(300, 300))
hybrid = HybridFHEModel(model, ["0"])
hybrid.compile_model(torch.randn(20, 300))
hybrid.save_and_clear_private_info({folder!r})
gc.collect()
patterns = [bytes.fromhex(x) for x in subprocess.check_output([sys.executable, "-c", {reader!r}, {folder!r}], text=True).split()]
print(len(patterns), memory.count(patterns))
"""


def test_no_integer_weight_is_left_in_the_process(tmp_path):
    """Neither in freed memory, where the files were put together."""
    code = INTEGERS_LEFT.format(tests=str(ROOT / "tests/python"), python=str(ROOT / "python"), folder=str(tmp_path / "m"), reader=INTEGERS)
    patterns, left = map(int, subprocess.check_output([sys.executable, "-c", code], universal_newlines=True).split())
    assert patterns >= 8
    assert left == 0


def test_plain_model_equals_the_float_model(small):
    """The local part is the owner's."""
    plain = FCSmall().eval()
    plain.load_state_dict(torch.load(small.folder / "model.pth", weights_only=True), strict=False)
    x = torch.randn(3, 10)
    close(plain.seq[2](x), small.float.seq[2](x), 0)

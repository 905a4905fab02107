"""The program hemi, from ONNX to a reply that was computed on encrypted data. No Python of ours is in what is tested."""

import json
import math
import os
import re
import stat
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from serving import Server

BUILD = ROOT / os.environ.get("BUILD", "build")
HEMI = BUILD / "bin" / "hemi"
USAGE, ARGUMENT, FORMAT, PARAMS, SHAPE, UNSUPPORTED, NOT_FOUND, NETWORK, STATE = 64, 2, 5, 7, 8, 9, 10, 15, 17
COMMANDS = [["compile"], ["call"], ["inspect"], ["keys", "new"], ["keys", "show"], ["bench", "linear"], ["bench", "prepared"], ["bench", "rows"], ["bench", "circuit"], ["serve"], ["version"]]


def hemi(*arguments, **options):
    return subprocess.run([str(HEMI), *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


def run(*arguments):
    done = hemi(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_json(*arguments):
    return json.loads(run(*arguments, "--json"))


def without_request_id(message):
    return re.sub(r" \(request [0-9a-f]{16}\)", "", message)


def fails(code, *arguments):
    """The command fails with this exit code and says why on stderr; with --json also on stdout. Returns the message."""
    done = hemi(*arguments)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr and "Traceback" not in done.stderr
    if code != USAGE:
        error = json.loads(hemi(*arguments, "--json").stdout)["error"]
        assert error["code"].startswith("HEMI_ERR_") and without_request_id(error["message"]) in without_request_id(done.stderr)
    return done.stderr


def export(module, inputs, path):
    torch.onnx.export(module, torch.randn(1, inputs), str(path))


class Made:
    """A model of two modules, compiled by the program."""

    def __init__(self, folder):
        torch.manual_seed(0)
        self.models, self.model = folder / "models", folder / "models" / "demo"
        self.fc, self.wide = torch.nn.Linear(10, 4), torch.nn.Linear(300, 200, bias=False)
        self.x, self.x_wide = torch.randn(50, 10), torch.randn(20, 300)
        self.onnx, self.calibration = folder / "fc.onnx", folder / "x.npy"
        export(self.fc, 10, self.onnx)
        export(self.wide, 300, folder / "wide.onnx")
        np.save(self.calibration, self.x.numpy())
        np.save(folder / "x_wide.npy", self.x_wide.numpy())
        self.described = run_json("compile", self.onnx, "--name", "seq.0", "--calibration", self.calibration, "-o", self.model)
        run("compile", folder / "wide.onnx", "-n", "wide", "-c", folder / "x_wide.npy", "-o", self.model, "--layout", "1024")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def url(made):
    with Server([HEMI, "serve", made.models, "--port", "0", "--json", "--quiet", "--no-auth", "--store", "memory"]) as server:
        yield server.url


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command):
    text = run(*command, "--help")
    assert text.startswith("usage: hemi") and "--json" in text and "example" in text
    if command != ["serve"]:
        assert "hemi " + " ".join(command) in text


def test_overview():
    for arguments in (["--help"], ["-h"], ["help"]):
        text = run(*arguments)
        assert all(c[0] in text for c in COMMANDS)
    assert run("help", "compile") == run("compile", "--help")
    for group in ("keys", "bench"):
        assert "usage: hemi " + group in run(group, "--help")
    done = hemi()
    assert done.returncode == USAGE and "usage" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["keys"],
        ["keys", "lose"],
        ["keys", "new"],
        ["keys", "show"],
        ["bench"],
        ["bench", "everything"],
        ["bench", "linear"],
        ["bench", "linear", "--inputs", "10"],
        ["bench", "linear", "--inputs", "ten", "--outputs", "10"],
        ["bench", "linear", "--inputs", "10x", "--outputs", "10"],
        ["bench", "linear", "--inputs", "0", "--outputs", "10"],
        ["bench", "linear", "--inputs", "99999999999999999999", "--outputs", "10"],
        ["bench", "conv2d", "--in-channels", "3", "--out-channels", "4"],
        ["bench", "conv2d", "--in-channels", "3", "--out-channels", "4", "--size", "8x"],
        ["bench", "conv2d", "--in-channels", "3", "--out-channels", "4", "--size", "2x2"],
        ["bench", "conv2d", "--in-channels", "3", "--out-channels", "4", "--size", "8x8", "--groups", "2"],
        ["bench", "model"],
        ["bench", "model", "gpt2", "--layers", "0"],
        ["bench", "serve", "--clients", "0"],
        ["bench", "circuit"],
        ["bench", "circuit", "cnn-1", "--tolerance", "much"],
        ["bench", "circuit", "cnn-1", "--tolerance", "2"],
        ["bench", "circuit", "cnn-1", "--calibration", "x.npy"],
        ["bench", "circuit", "net.onnx"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["inspect", "--colour"],
        ["compile"],
        ["compile", "a.onnx", "--name", "x"],
        ["compile", "a.onnx", "--name"],
        ["compile", "a.onnx", "--name", "x", "--calibration", "x.npy", "-o", "d", "--n-bits", "17"],
        ["compile", "a.onnx", "--name", "x", "--calibration", "x.npy", "-o", "d", "--tolerance", "nan"],
        ["compile", "a.onnx", "--name", "x", "--calibration", "x.npy", "-o", "d", "--tolerance", "-1"],
        ["compile", "a.onnx", "--name", "x", "--calibration", "x.npy", "-o", "d", "--range-margin", "1.1x"],
        ["compile", "a.onnx", "--name", "x", "--calibration", "x.npy", "-o", "d", "--degree-max", "128"],
        ["call", "http://127.0.0.1:1", "m"],
        ["call", "http://127.0.0.1:1", "m", "f"],
        ["call", "http://127.0.0.1:1", "m", "f", "--input", "x.npy", "--repeat", "0"],
        ["version", "please"],
        ["serve"],
        ["serve", ".", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_mistakes_on_the_command_line(arguments):
    fails(USAGE, *arguments)


def test_version():
    header = (ROOT / "include" / "hemi" / "status.h").read_text()
    version = run_json("version")
    assert f'HEMI_VERSION "{version["version"]}"' in header
    assert version["kernel"] in version["kernels"] and "portable" in version["kernels"]
    assert {"L4096", "L2048"} <= {s["name"] for s in version["sets"]}
    assert all(s["security_bits"] >= 128 for s in version["sets"])
    assert version["version"] in run("version") and run("--version") == run("version")
    chosen = hemi("version", "--json", env={**os.environ, "HEMI_KERNEL": "portable"})
    assert json.loads(chosen.stdout)["kernel"] == "portable"


def test_keys(tmp_path):
    folder = tmp_path / "a" / "keys"
    assert json.loads(hemi("keys", "show", tmp_path, "--json").stdout) == {"folder": str(tmp_path), "keys": []}
    assert "hemi keys new" in run("keys", "show", tmp_path)
    made = run_json("keys", "new", "-o", folder)
    path = folder / "L4096.key"
    assert made["file"] == str(path) and made["security_bits"] >= 128
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert "--force" in fails(STATE, "keys", "new", "-o", folder)
    assert path.read_bytes() == before
    run("keys", "new", "-o", folder, "--set", "L2048")
    run("keys", "new", "-o", folder, "--force")
    assert path.read_bytes() != before
    shown = run_json("keys", "show", folder)["keys"]
    assert sorted(k["set"] for k in shown) == ["L2048", "L4096"]
    assert all(k["readable"] and k["private"] for k in shown)
    path.chmod(0o644)
    assert "chmod 600" in run("keys", "show", folder)
    path.write_bytes(before[:-1])
    done = hemi("keys", "show", folder, "--json")
    assert [k["readable"] for k in json.loads(done.stdout)["keys"] if k["set"] == "L4096"] == [False]
    assert "hemi version" in fails(PARAMS, "keys", "new", "-o", folder, "--set", "L1")
    fails(NOT_FOUND, "keys", "show", tmp_path / "none")


def test_compile(made):
    d = made.described
    assert d["folder"] == str(made.model / "seq.0" / "po_1_10_pc")
    assert (d["inputs"], d["outputs"], d["shape"], d["bias"]) == (10, 4, [1, 10], True)
    assert (d["weight_bits"], d["input_bits"], d["set"]) == (8, 16, "L4096")
    for name in ("client", "server"):
        assert (made.model / "seq.0" / "po_1_10_pc" / f"{name}.zip").stat().st_size == d[f"{name}_file_bytes"]
    assert 0 < d["predicted_error"] < 1e-3 * d["output_max"]


def test_compile_options(made, tmp_path):
    common = ["--name", "fc", "--calibration", made.calibration, "-o", tmp_path]
    d = run_json("compile", made.onnx, *common, "--n-bits", "6", "--input-bits", "12", "--layout", "4096", "--b-bits", "30")
    assert (d["weight_bits"], d["input_bits"], d["layout"], d["b_bits"]) == (6, 12, 4096, 30)
    again = run_json("compile", made.onnx, *common)  # in its place
    assert again["id"] != d["id"] and len(list(tmp_path.rglob("*.zip"))) == 2
    assert "compiled" in run("compile", made.onnx, *common)
    np.save(tmp_path / "tokens.npy", np.random.randn(3, 5, 10).astype(np.float32))
    d = run_json("compile", made.onnx, "--name", "fc", "--calibration", tmp_path / "tokens.npy", "-o", tmp_path)
    assert d["folder"].endswith("po_1_5_10_pc")
    np.save(tmp_path / "row.npy", np.random.randn(10))  # one row, float64
    assert run_json("compile", made.onnx, "--name", "row", "--calibration", tmp_path / "row.npy", "-o", tmp_path)["shape"] == [1, 10]


def test_compile_errors(made, tmp_path):
    def wrong(code, onnx=made.onnx, calibration=made.calibration, name="fc", *more):
        return fails(code, "compile", onnx, "--name", name, "--calibration", calibration, "-o", tmp_path / "out", *more)

    wrong(NOT_FOUND, onnx=tmp_path / "none.onnx")
    wrong(NOT_FOUND, calibration=tmp_path / "none.npy")
    for name in ("..", "a/b", ".hidden", "", "a b", "x" * 200):
        wrong(ARGUMENT, name=name)
    (tmp_path / "text.npy").write_text("not an array")
    wrong(FORMAT, calibration=tmp_path / "text.npy")
    (tmp_path / "text.onnx").write_text("not a model")
    wrong(FORMAT, onnx=tmp_path / "text.onnx")
    np.save(tmp_path / "narrow.npy", np.zeros((4, 9), np.float32))
    wrong(SHAPE, calibration=tmp_path / "narrow.npy")
    export(torch.nn.Sequential(torch.nn.Linear(10, 4), torch.nn.Softmax(-1)), 10, tmp_path / "softmax.onnx")
    assert "Softmax" in wrong(UNSUPPORTED, onnx=tmp_path / "softmax.onnx")
    wrong(PARAMS, made.onnx, made.calibration, "fc", "--set", "L9")
    wrong(ARGUMENT, made.onnx, made.calibration, "fc", "--layout", "1000")
    assert not (tmp_path / "out").exists()


def test_inspect(made, tmp_path):
    everything = run_json("inspect", made.models)["modules"]
    assert [m["name"] for m in everything] == ["demo/seq.0/po_1_10_pc", "demo/wide/po_1_300_pc"]
    for m in everything:
        assert m["operation"] == "linear" and m["security_bits"] >= 128 and m["file"] == "server.zip"
        assert all(m[k] > 0 for k in ("products", "layout", "evaluation_key_bytes", "upload_bytes", "download_bytes", "predicted_error"))
        assert 0 < m["relative_error"] < 1e-3 and m["expected_bits"] > 10
    assert everything[1]["layout"] == 1024 and everything[1]["automorphisms"] > 0
    assert len(run_json("inspect", made.model)["modules"]) == 2
    folder = made.model / "seq.0" / "po_1_10_pc"
    for path in (folder, folder.parent):
        (one,) = run_json("inspect", path)["modules"]
        assert one["id"] == made.described["id"]
    (tmp_path / "client.zip").write_bytes((folder / "client.zip").read_bytes())
    (one,) = run_json("inspect", tmp_path)["modules"]
    assert one["file"] == "client.zip" and one["output_max"] is None and one["relative_error"] is None
    table = run("inspect", made.models).splitlines()
    assert len(table) == 3 and "300 -> 200" in table[2]
    (tmp_path / "client.zip").write_bytes(b"not a zip file")
    fails(FORMAT, "inspect", tmp_path)
    (tmp_path / "client.zip").unlink()
    assert "hemi compile" in fails(NOT_FOUND, "inspect", tmp_path)
    fails(NOT_FOUND, "inspect", tmp_path / "none")


def close(y, expected):
    return np.abs(y - expected.detach().numpy()).max() < 0.03 * np.abs(expected.detach().numpy()).max()


def test_call(made, url, tmp_path):
    out = tmp_path / "y.npy"
    result = run_json("call", url, "demo", "seq.0", "--input", made.calibration, "--output", out, "--repeat", "5")
    y = np.load(out)
    assert y.dtype == np.float32 and y.shape == (50, 4) and close(y, made.fc(made.x))
    assert (result["rows"], result["inputs"], result["outputs"], result["repeat"]) == (50, 10, 4, 5)
    assert all(result[k] > 0 for k in ("upload_bytes", "download_bytes", "evaluation_key_bytes", "open_ms", "first_call_ms"))
    parts = [result[k] for k in ("encrypt_ms", "network_ms", "server_ms", "decrypt_ms", "total_ms")]
    assert all(p > 0 for p in parts)
    text = run("call", url, "demo", "seq_0", "-i", made.calibration, "--shape", "po_1_10_pc")
    assert "encrypt" in text and "up " in text


def test_call_keeps_the_leading_shape(made, url, tmp_path):
    out = tmp_path / "y.npy"
    for shape in [(10,), (1, 10), (3, 5, 10), (2, 1, 3, 10)]:
        x = torch.randn(shape)
        np.save(tmp_path / "x.npy", x.numpy())
        run("call", url, "demo", "seq.0", "-i", tmp_path / "x.npy", "-o", out)
        y = np.load(out)
        assert y.shape == shape[:-1] + (4,) and close(y, made.fc(x))


def test_call_with_kept_keys(made, url, tmp_path):
    np.save(tmp_path / "x.npy", made.x_wide.numpy())
    call = ["call", url, "demo", "wide", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--keys", tmp_path / "keys"]
    run(*call)
    key = (tmp_path / "keys" / "L4096.key").read_bytes()
    run(*call)
    assert (tmp_path / "keys" / "L4096.key").read_bytes() == key
    assert close(np.load(tmp_path / "y.npy"), made.wide(made.x_wide))


def test_call_prepared(made, url, tmp_path):
    out = tmp_path / "y.npy"
    np.save(tmp_path / "x.npy", made.x_wide[:1].numpy())
    call = ["call", url, "demo", "wide", "--input", tmp_path / "x.npy", "--output", out, "--repeat", "300"]
    result = run_json(*call, "--prepare", "on")
    assert 0 < result["prepared_calls"] < 300 and close(np.load(out), made.wide(made.x_wide[:1]))
    assert run_json(*call, "--prepare", "off")["prepared_calls"] == 0
    fails(USAGE, *call, "--prepare", "perhaps")


def test_call_errors(made, url, tmp_path):
    x = made.calibration
    assert "hemi serve" in fails(NETWORK, "call", "http://127.0.0.1:1", "demo", "seq.0", "--input", x)
    fails(ARGUMENT, "call", "127.0.0.1:1", "demo", "seq.0", "--input", x)
    fails(NOT_FOUND, "call", url, "none", "seq.0", "--input", x)
    fails(NOT_FOUND, "call", url, "demo", "none", "--input", x)
    fails(NOT_FOUND, "call", url, "demo", "seq.0", "--shape", "po_1_9_pc", "--input", x)
    fails(NOT_FOUND, "call", url, "demo", "seq.0", "--input", tmp_path / "none.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 9), np.float32))
    assert "10" in fails(SHAPE, "call", url, "demo", "seq.0", "--input", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((0, 10), np.float32))
    assert hemi("call", url, "demo", "seq.0", "--input", tmp_path / "x.npy").returncode in (FORMAT, SHAPE)
    np.save(tmp_path / "x.npy", np.full((1, 10), np.nan, np.float32))
    fails(ARGUMENT, "call", url, "demo", "seq.0", "--input", tmp_path / "x.npy")


# ---- modules with activations


class Circuits:
    """A model with a network of rows and one of samples."""

    def __init__(self, folder):
        torch.manual_seed(1)
        self.models, self.model = folder / "models", folder / "models" / "nets"
        self.mlp = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
        self.cnn = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(32, 3))
        self.x, self.images = torch.randn(200, 10), torch.rand(100, 1, 4, 4)
        export(self.mlp, 10, folder / "mlp.onnx")
        torch.onnx.export(self.cnn, self.images[:1], str(folder / "cnn.onnx"))
        np.save(folder / "x.npy", self.x.numpy())
        np.save(folder / "images.npy", self.images.numpy())
        self.folder = folder
        self.described = self.compile("mlp", "x", "--tolerance", "0.05")
        self.images_described = self.compile("cnn", "images", "-b", "8")

    def compile(self, name, x, *more, what=run_json):
        return what("compile", self.folder / f"{name}.onnx", "-n", name, "-c", self.folder / f"{x}.npy", "-o", self.model, "-b", "0", *more)


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    return Circuits(tmp_path_factory.mktemp("circuits"))


def test_compile_circuits(nets):
    d = nets.described
    assert (d["operation"], d["by_rows"], d["inputs"], d["outputs"], d["shape"]) == ("circuit", True, 10, 4, [1, 10])
    assert (d["weight_bits"], d["input_bits"]) == (0, 0) and d["security_bits"] >= 128
    assert 0 < d["levels"] <= d["set_levels"] and d["packed_rows"] > 1 and 0 < d["approximation_error"] <= 0.05
    (relu,) = d["activations"]
    assert "Relu" in relu["name"] and relu["size"] == 8 and relu["low"] < 0 < relu["high"] and d["degrees"] == [relu["degree"]]
    reached = nets.mlp[0](nets.x)
    assert relu["low"] < reached.min() and relu["high"] > reached.max()
    d = nets.images_described
    assert (d["operation"], d["by_rows"], d["shape"], d["output_shape"], d["weight_bits"]) == ("circuit", False, [1, 1, 4, 4], [1, 3], 8)
    text = nets.compile("mlp", "x", "--tolerance", "0.05", what=run)
    assert all(w in text for w in ("circuit, 10 -> 4", "weights as they are", "levels", "rows at once", "Relu", "evaluation keys", "server.zip"))


def test_compile_circuit_options(nets, tmp_path):
    def described(*more):
        return run_json("compile", nets.folder / "mlp.onnx", "-n", "mlp", "-c", nets.folder / "x.npy", "-o", tmp_path, *more)

    near, far = described("--tolerance", "0.2"), described("--tolerance", "0.02")
    assert near["degrees"][0] < far["degrees"][0] and far["approximation_error"] < 0.02 < near["approximation_error"] < 0.2
    wide = described("--tolerance", "0.2", "--range-margin", "2")
    assert wide["activations"][0]["high"] > 1.2 * near["activations"][0]["high"] and wide["input_high"] > near["input_high"]
    assert described("--tolerance", "0.2", "--rows", "4")["packed_rows"] == 4
    assert described("--tolerance", "0.2", "--set", "C32768")["set"] == "C32768"
    assert described("--tolerance", "0.2", "--input-bits", "6")["input_bits"] == 6
    linear = run_json("compile", nets.folder / "mlp.onnx", "-n", "mlp", "-c", nets.folder / "x.npy", "-o", tmp_path, "--force-circuit")
    assert linear["operation"] == "circuit" and linear["weight_bits"] == 8

    def wrong(code, *more):
        return fails(code, "compile", nets.folder / "mlp.onnx", "-n", "mlp", "-c", nets.folder / "x.npy", "-o", tmp_path / "none", *more)

    assert "C16384" in wrong(PARAMS, "--set", "L4096")
    assert "16384 rows" in wrong(UNSUPPORTED, "--rows", "16384", "--set", "C16384")
    assert "power of two" in wrong(ARGUMENT, "--rows", "3")
    assert "degree 2" in wrong(UNSUPPORTED, "--degree-max", "2", "--tolerance", "0.001")
    assert "levels" in wrong(UNSUPPORTED, "--set", "C8192", "--tolerance", "0.02")
    assert not (tmp_path / "none").exists()


def test_force_circuit(made, tmp_path):
    d = run_json("compile", made.onnx, "-n", "fc", "-c", made.calibration, "-o", tmp_path, "--force-circuit", "-b", "0")
    assert d["operation"] == "circuit" and d["levels"] == 1 and d["activations"] == [] and d["approximation_error"] == 0


def test_inspect_circuits(nets, tmp_path):
    listed = {m["name"]: m for m in run_json("inspect", nets.models)["modules"]}
    assert len(listed) == 2
    d = listed["nets/mlp/po_1_10_pc"]
    assert all(d[k] == nets.described[k] for k in ("set", "levels", "activations", "degrees", "upload_bytes", "evaluation_key_bytes", "packed_rows", "approximation_error"))
    text = run("inspect", nets.models)
    assert "levels" in text and "1x4x4 -> 3" in text and "Relu" not in text and len(text.splitlines()) == 3
    text = run("inspect", nets.models, "--activations")
    assert "Relu (node" in text and "Tanh (node" in text
    (tmp_path / "client.zip").write_bytes((nets.model / "mlp" / "po_1_10_pc" / "client.zip").read_bytes())
    (one,) = run_json("inspect", tmp_path)["modules"]
    assert one["file"] == "client.zip" and one["activations"] == [] and one["approximation_error"] is None and one["levels"] == d["levels"]
    assert "Relu" not in run("inspect", tmp_path, "-a")


@pytest.fixture(scope="module")
def nets_url(nets):
    with Server([HEMI, "serve", nets.models, "--port", "0", "--json", "--quiet", "--no-auth", "--store", "memory"]) as server:
        yield server.url


def test_call_circuits(nets, nets_url, tmp_path):
    out = tmp_path / "y.npy"

    def rms(net, x):
        y, expected = np.load(out), net(x).detach().numpy()
        assert y.dtype == np.float32 and y.shape == expected.shape
        return np.sqrt(np.mean((y - expected) ** 2) / np.mean((expected - expected.mean(0)) ** 2))

    done = run_json("call", nets_url, "nets", "mlp", "-i", nets.folder / "x.npy", "-o", out, "--keys", tmp_path / "keys")
    assert rms(nets.mlp, nets.x) < 0.06 and done["rows"] == 200 and done["rows_out_of_range"] == 0 and done["server_ms"] > 0
    done = run_json("call", nets_url, "nets", "cnn", "-i", nets.folder / "images.npy", "-o", out, "--keys", tmp_path / "keys", "--repeat", "2")
    assert rms(nets.cnn, nets.images) < 0.1 and done["rows"] == 100 and done["rows_out_of_range"] == 0
    np.save(tmp_path / "far.npy", np.concatenate([nets.x[:5].numpy(), 20 * nets.x[:3].numpy()]))
    done = hemi("call", nets_url, "nets", "mlp", "-i", tmp_path / "far.npy", "-o", out, "--keys", tmp_path / "keys")
    # what is far out spoils the rows that share its ciphertext
    assert done.returncode == 0 and int(re.search(r"(\d+) of 8 rows", done.stderr)[1]) >= 3 and np.load(out).shape == (8, 4)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 9), np.float32))
    fails(SHAPE, "call", nets_url, "nets", "mlp", "-i", tmp_path / "wrong.npy")


KEYS_OF_CIRCUIT = """server_ms server_cpu_ms upload_bytes download_bytes evaluation_key_bytes server_bytes server_key_bytes server_peak_bytes load_ms
keygen_ms encrypt_ms decrypt_ms error_std_over_max approximation_error approximation_error_measured levels ring security_bits set degrees
rows_per_ciphertext ms_per_row kernel""".split()


def test_bench_circuit():
    for kernel in run_json("version")["kernels"]:
        r = run_json("bench", "circuit", "mlp-10-32-10", "--kernel", kernel, "--repeat", 1, "--tolerance", 0.1, "--rows", 8, "--threads", 2)
        assert all(r[k] for k in KEYS_OF_CIRCUIT) and r["kernel"] == kernel and r["outputs_wrong"] == 0 and r["security_bits"] >= 128
        assert r["rows_per_ciphertext"] == 8 and r["outputs_checked"] == 2 * 8 * 10 and r["ms_per_row"] == pytest.approx(r["server_ms"] / 8)
        assert r["error_std_over_max"] < 2**-12 and r["approximation_error"] <= 0.1 and r["approximation_error_measured"] < 0.15
    text = run("bench", "circuit", "cnn-1", "--repeat", 1, "--tolerance", 0.2)
    assert text.startswith("cnn-1") and "levels" in text and "Relu" in text and "a row" in text


def test_bench_circuit_of_files():
    models = ROOT / "bench" / "models"
    for name, rows in (("mlp-64-128-64-10", True), ("cnn-1", False)):  # images, of which the first takes rows
        r = run_json("bench", "circuit", models / f"{name}.onnx", "-c", models / "digits.npy", "--repeat", 1, "--tolerance", 0.2)
        assert r["model"] == name and r["from_file"] and r["by_rows"] == rows and r["outputs_wrong"] == 0 and r["outputs"] == 10
        assert 0 < r["approximation_error_measured"] < 0.25


def test_bench_circuit_errors(tmp_path):
    fails(NOT_FOUND, "bench", "circuit", tmp_path / "none.onnx", "-c", ROOT / "bench" / "models" / "digits.npy")
    fails(NOT_FOUND, "bench", "circuit", ROOT / "bench" / "models" / "cnn-1.onnx", "-c", tmp_path / "none.npy")
    assert "gpt2-block" in fails(ARGUMENT, "bench", "circuit", "alexnet")
    fails(PARAMS, "bench", "circuit", "mlp-10-32-10", "--set", "L4096")
    fails(ARGUMENT, "bench", "circuit", "mlp-10-32-10", "--kernel", "abacus")
    fails(ARGUMENT, "bench", "circuit", "mlp-10-32-10", "--rows", "5")


def test_example_client(made, url):
    program = BUILD / "examples" / "client"
    x = [0.5, -1.0, 2.0]
    done = subprocess.run([str(program), url, "demo", "seq.0", *map(str, x)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    y = np.array([float(line) for line in done.stdout.split()])
    assert close(y, made.fc(torch.tensor(x + [0.0] * 7)))
    done = subprocess.run([str(program), url, "demo", "none"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "HEMI_ERR_NOT_FOUND" in done.stderr
    assert subprocess.run([str(program)], capture_output=True).returncode == 64


def test_serve_needs_a_model(tmp_path):
    fails(NOT_FOUND, "serve", tmp_path / "none", "--no-auth", "--store", "memory")


KEYS_OF_BENCH = """server_ms encrypt_ms decrypt_ms keygen_ms load_ms upload_bytes download_bytes evaluation_key_bytes
server_weight_bytes error_std_over_max predicted_error kernel layout security_bits""".split()


@pytest.mark.parametrize(
    "arguments",
    [["--inputs", 10, "--outputs", 10], ["--inputs", 100, "--outputs", 70, "--rows", 3, "--layout", 256, "--threads", 2]],
)
def test_bench_linear(arguments):
    kernels = run_json("version")["kernels"]
    for kernel in kernels:
        r = run_json("bench", "linear", *arguments, "--kernel", kernel, "--repeat", 15, "--keys-count", 12)
        assert all(r[k] for k in KEYS_OF_BENCH) and "plain_ms" in r
        assert r["kernel"] == kernel and r["repeat"] == 15 and r["outputs_wrong"] == 0 and r["security_bits"] >= 128
        assert 1 / 1.5 < r["error_std_over_max"] / r["predicted_error"] < 1.5
    assert r["layout"] == (256 if "--layout" in arguments else r["layout"])


KEYS_OF_PREPARED = """server_ms prepare_ms prepare_row_ms cpu_ms online_cpu_ms upload_bytes download_bytes prepare_upload_bytes
prepare_download_bytes server_state_bytes error_std_over_max predicted_error kernel pads_ms masks_ms encrypt_ms decrypt_ms""".split()


def test_bench_prepared():
    for kernel in run_json("version")["kernels"]:
        r = run_json("bench", "prepared", "-d", 100, "-m", 70, "--slots", 20, "--repeat", 2, "--kernel", kernel, "--n-bits", 9)
        assert all(r[k] for k in KEYS_OF_PREPARED) and "plain_ms" in r
        assert r["kernel"] == kernel and r["outputs_wrong"] == 0 and r["outputs_checked"] == 20 * 2 * 70
        assert r["online_cpu_ms"] < r["cpu_ms"] and r["error_std_over_max"] < 1.2 * r["predicted_error"]
    assert "a row" in run("bench", "prepared", "-d", 10, "-m", 7, "--slots", 3)
    assert hemi("bench", "prepared", "-d", 10).returncode == USAGE


def test_bench_rows():
    for kernel in run_json("version")["kernels"]:
        r = run_json("bench", "rows", "-d", 100, "-m", 70, "--rows", 50, "--repeat", 2, "--kernel", kernel)
        assert r["kernel"] == kernel and r["outputs_wrong"] == 0 and r["outputs_checked"] == 50 * 2 * 70 * len(r["forms"])
        best = r["forms"][r["best"]]
        assert best["server_ms"] == r["server_ms"] == min(form["server_ms"] for form in r["forms"].values())
        assert {"ciphertexts", "batch"} <= set(r["forms"]) and all(best[k] for k in ("upload_bytes", "download_bytes", "decrypt_ms"))
    assert "batch" in run("bench", "rows", "-d", 10, "-m", 7, "--rows", 40, "--repeat", 1)


@pytest.mark.parametrize(
    "arguments",
    [["-i", 3, "-o", 4, "--size", "6x5", "--padding", 1], ["-i", 4, "-o", 6, "-s", 8, "--kernel-size", "3x2", "--stride", 2, "--groups", 2, "--memory", "small"]],
)
def test_bench_conv2d(arguments):
    for kernel in run_json("version")["kernels"]:
        r = run_json("bench", "conv2d", *arguments, "--kernel", kernel, "--repeat", 15, "--keys-count", 6)
        assert all(r[k] for k in KEYS_OF_BENCH if k != "evaluation_key_bytes")
        assert r["kernel"] == kernel and r["outputs_wrong"] == 0 and r["plain_ms"] > 0
        assert r["output_size"] == ([6, 5] if "--padding" in arguments else [3, 4]) and r["memory"] == ("small" if "small" in arguments else "fast")
        assert 1 / 1.5 < r["error_std_over_max"] / r["predicted_error"] < 1.5
    text = run("bench", "conv2d", "-i", 1, "-o", 1, "-s", 4, "--repeat", 15, "--keys-count", 1)
    assert text.startswith("conv2d 1 -> 1") and "largest output" in text


LAYERS = [
    {"name": "q", "inputs": 60, "outputs": 50, "count": 3},
    {"name": "k", "inputs": 60, "outputs": 20, "count": 3, "shared_with": "q"},
    {"name": "out", "inputs": 300, "outputs": 40},
]


def test_bench_model(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(LAYERS))
    for kernel in run_json("version")["kernels"]:
        r = run_json("bench", "model", path, "--repeat", 2, "--kernel", kernel)
        assert r["layers"] == r["layers_held"] == 7 and r["requests_held"] == 4 and r["weights"] == 3 * 60 * 70 + 300 * 40
        assert r["kernel"] == kernel and r["outputs_wrong"] == 0 and r["outputs_checked"] == 2 * 3 * (3 * 70 + 40)
        assert r["plain_ms"] == min(r["plain_loop_ms"], r["plain_openblas_ms"] or math.inf)
        for part in (r["token"], r["prepared"]):
            assert all(part[k] > 0 for k in ("server_ms", "server_cpu_ms", "client_ms", "upload_bytes", "download_bytes"))
        assert r["prepared"]["upload_bytes"] < r["token"]["upload_bytes"] and r["prepared"]["slots"] >= 3
        assert 0.5 < r["error_over_predicted"] < 1.5
    scaled = run_json("bench", "model", path, "--repeat", 1, "--layers", 1, "--memory", "small", "--no-prepare")
    assert scaled["layers_held"] == 3 and scaled["layers"] == 7 and scaled["prepared"] is None
    assert scaled["token"]["upload_bytes"] == r["token"]["upload_bytes"] and scaled["server_weight_bytes"] < r["server_weight_bytes"]
    assert "of the layers" in run("bench", "model", path, "--repeat", 1, "--layers", 1)


@pytest.mark.parametrize(
    "layers",
    [{}, [], [{"name": "a", "inputs": 3}], [{"inputs": 3, "outputs": 3}], [{"name": "a", "inputs": 3, "outputs": 70000}], [{**LAYERS[1]}]]
    + [[{"name": "a", "inputs": 3, "outputs": 3}, {"name": "b", "inputs": 4, "outputs": 3, "shared_with": "a"}], [{"name": "a", "inputs": 3, "outputs": 3, "count": 0}]],
)
def test_bench_model_refuses(layers, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(layers))
    fails(FORMAT, "bench", "model", tmp_path / "a.json")


def test_bench_model_errors(tmp_path):
    (tmp_path / "a.json").write_text("[")
    fails(FORMAT, "bench", "model", tmp_path / "a.json")
    fails(NOT_FOUND, "bench", "model", tmp_path / "none.json")
    fails(ARGUMENT, "bench", "model", "gpt2", "--memory", "none")


def test_bench_serve():
    before = set(Path(tempfile.gettempdir()).glob("hemi-bench-*"))
    r = run_json("bench", "serve", "-d", 20, "-m", 10, "--clients", 2, "--rounds", 2, "--seconds", 1)
    assert r["outputs_wrong"] == 0 and [x["clients"] for x in r["http"]] == [x["clients"] for x in r["evaluate"]] == [1, 2]
    for x in r["http"] + r["evaluate"]:
        assert x["calls_per_second"] > 0 and len(x["each"]) == x["clients"]
        assert all(0 < e["p50_ms"] <= e["p99_ms"] and e["calls"] > 0 for e in x["each"])
    assert all(x["client_cpu_ms"] > 0 and x["server_cpu_ms"] > 0 for x in r["http"])
    assert set(Path(tempfile.gettempdir()).glob("hemi-bench-*")) <= before
    assert "calls/s" in run("bench", "serve", "-d", 20, "-m", 10, "--clients", 1, "--rounds", 1, "--seconds", 1, "--prepare")


def test_bench_linear_errors():
    text = run("bench", "linear", "--inputs", 4, "--outputs", 3, "--repeat", 15, "--keys-count", 1)
    assert "server" in text and "largest output" in text
    fails(ARGUMENT, "bench", "linear", "--inputs", 10, "--outputs", 10, "--kernel", "abacus")
    fails(ARGUMENT, "bench", "linear", "--inputs", 10, "--outputs", 10, "--layout", 100)
    fails(SHAPE, "bench", "linear", "--inputs", 10, "--outputs", 65536)
    fails(PARAMS, "bench", "linear", "--inputs", 10, "--outputs", 10, "--set", "none")


def test_the_manual_lists_the_exit_codes():
    header = (ROOT / "include" / "hemi" / "status.h").read_text()
    manual = (ROOT / "docs" / "cli.md").read_text()
    rows = re.findall(r'X\((\w+), (-?\d+), \d+, "(.*)"\)', header)
    assert len(rows) > 15
    for name, value, text in rows:
        assert f"| {-int(value)} | `HEMI_{name}` | {text} |" in manual

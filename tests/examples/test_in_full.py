"""The larger examples, as a user starts them: over HTTP, between processes. `make check-long` runs this in the environment that
examples/venv.sh makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name / "run.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1200, universal_newlines=True, cwd="/")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    lines = done.stdout.rstrip().splitlines()
    assert lines[-1] == f"{name}: it worked" and len(lines) > 5
    assert "[#" in done.stderr
    print(done.stdout)
    return json.loads(lines[-2])


def test_gpt2():
    f = run("gpt2")
    assert f["layers"] == 12 and f["products"] == 48
    assert f["tokens"] >= 100 and f["equal_same_prefix"] >= 0.98 and f["logit_error_rms"] < 0.05
    assert f["different_tokens"] >= 10  # the comparison says something
    assert f["server_memory_mib"] < 4096


def test_gpt2_mlp():
    f = run("gpt2", "--mlp", "2", "--tokens", "60", "--free", "20")
    assert f["layers"] == 12 and f["token_requests"] == 2 and len(f["reports"]) == 2
    assert f["equal_same_prefix"] >= 0.98 and f["logit_error_rms"] < 0.02
    assert f["different_tokens"] >= 10
    assert f["server_memory_mib"] < 2048


def test_llama():
    f = run("llama")
    assert f["token_requests"] == 16 and f["products"] == 28  # q, k, v together; gate, up together
    assert f["tokens"] >= 100 and f["equal_same_prefix"] >= 0.98 and f["logit_error_rms"] < 0.05


def test_cnn():
    f = run("cnn")
    assert f["images"] == 360 and f["accuracy_remote"] >= f["accuracy_float"] - 0.01


def test_cnn_block():
    f = run("cnn", "--block")
    assert f["images"] == 360 and f["accuracy_remote"] >= f["accuracy_float"] - 0.01
    (report,) = f["reports"].values()  # one module
    assert report["module"]["operation"] == "circuit" and list(f["layers"]) == ["block"]


@pytest.mark.parametrize("model", ["mlp", "cnn-1", "cnn-2"])
def test_digits_remote(model):
    f = run("digits_remote", "--model", model)
    assert f["images"] == 360 and abs(f["accuracy_remote"] - f["accuracy_float"]) <= 0.01 and f["same_class"] >= 0.99
    assert f["reports"]["net"]["module"]["operation"] == "circuit"


@pytest.mark.parametrize("arguments", [["--model", "mlp"], ["--model", "cnn"], ["--weight-bits", "3", "--bits", "3"]])
def test_brevitas(arguments):
    f = run("brevitas", *arguments)
    assert f["same_class_clear"] == 1 and f["error_clear"] < 1e-3  # exactly as quantised
    assert f["images"] == 360 and f["same_class_remote"] >= 0.97 and f["accuracy_remote"] >= f["accuracy_brevitas"] - 0.02


def test_resnet18():
    f = run("resnet18")
    assert len(f["layers"]) == 20 and f["same_class"] == 1 and f["logit_error_rms"] < 0.02


def test_lora():
    f = run("lora")
    assert f["loss_last"] < 0.95 * f["loss_first"]
    assert f["loss_difference_max"] < 0.02 and f["adapters_difference"] < 0.2
    assert f["backward"]["calls"] > 0
    assert f["forward"]["requests"] < f["forward"]["calls"]  # q, k and v by one


@pytest.mark.parametrize("name, more", [("gpt2", []), ("gpt2", ["--mlp", "2"]), ("llama", [])])
def test_small(name, more):
    f = run(name, "--small", "--tokens", "30", "--free", "10", *more)
    assert f["equal_same_prefix"] >= 0.98

"""The examples: the code of the seed pages, and the digits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT


def run(script, seconds):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script)], stdout=subprocess.PIPE, timeout=seconds, universal_newlines=True, cwd="/"
    )
    assert done.returncode == 0, done.stdout[-3000:]
    lines = done.stdout.rstrip().splitlines()
    assert "it worked" in lines[-1]
    return json.loads(lines[-2]), done.stdout


def test_seeds():
    figures, output = run("seeds/run.py", 120)
    assert output.count("['', 'seq', 'seq.0', 'seq.1', 'seq.2']") == 4
    assert max(figures["seeds_error_page_1"], figures["seeds_error_page_2"]) < 0.05
    assert max(figures["seeds_error_page_1_whole"], figures["seeds_error_page_2_whole"]) < 0.1


def test_digits():
    figures, _ = run("digits/run.py", 240)
    assert figures["accuracy_float"] > 0.95 and figures["accuracy_remote"] >= figures["accuracy_float"] - 0.01
    assert figures["logit_error_max"] < 0.05 * figures["logit_max"]
    assert figures["images"] == 360 and figures["evaluation_key_bytes"] < 800000


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("cnn/run.py", ["--images", "60", "--epochs", "10"]),
        ("cnn/run.py", ["--block", "--images", "65", "--epochs", "10"]),
        ("digits_remote/run.py", ["--model", "mlp", "--images", "65"]),
        ("digits_remote/run.py", ["--model", "cnn-1", "--images", "65"]),
        ("resnet18/run.py", ["--images", "2", "--width", "8"]),
        ("lora/run.py", ["--steps", "8", "--batch", "4", "--pretrain", "60", "--layers", "1", "--size", "32"]),
    ],
)
def test_small(script, arguments):
    """The larger examples, with less of everything; tests/examples runs them in full. Each checks its own results."""
    command = [sys.executable, str(ROOT / "examples" / script), "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=240, universal_newlines=True, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()  # nothing but the figures
    assert json.loads(line)["seconds"] > 0
    assert "[#" in done.stderr  # a progress bar


@pytest.mark.parametrize("script", sorted(f"{f.parent.name}/run.py" for f in (ROOT / "examples").glob("*/run.py") if f.parent.name not in ("digits", "seeds")))
def test_help(script):
    """Says what it is and what can be asked for, also where transformers is missing."""
    done = subprocess.run([sys.executable, str(ROOT / "examples" / script), "--help"], stdout=subprocess.PIPE, universal_newlines=True, cwd="/")
    assert done.returncode == 0 and "--json" in done.stdout and "Ends with a table" in done.stdout.replace("\n", " ")


LEFT_ALONE = """
import sys, os, signal
sys.path[:0] = [{examples!r}]
import serving
if {stop!r} == "TERM":
    serving.stop_cleanly_on_sigterm()
with serving.hemi_server({models!r}, "--quiet") as server:
    print(server.process.pid, flush=True)
    os.kill(os.getpid(), getattr(signal, "SIG" + {stop!r}))
    signal.pause()
"""


@pytest.mark.parametrize("stop", ["TERM", "KILL", "INT"])
def test_nothing_is_left_running(small, stop):
    """The server of an example ends with the example, however that ends."""
    code = LEFT_ALONE.format(examples=str(ROOT / "examples"), models=str(small.models), stop=stop)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
    assert done.returncode != 0
    pid = int(done.stdout.split()[0])
    for _ in range(100):
        if not (Path("/proc") / str(pid)).exists() or "hemi-server" not in (Path("/proc") / str(pid) / "cmdline").read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")

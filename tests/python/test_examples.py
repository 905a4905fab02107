"""The examples: the code of the seed pages, and the digits."""

import json
import subprocess
import sys

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
    assert output.count("['', 'seq', 'seq.0', 'seq.1', 'seq.2']") == 2
    assert max(figures.values()) < 0.05


def test_digits():
    figures, _ = run("digits/run.py", 240)
    assert figures["accuracy_float"] > 0.95 and figures["accuracy_remote"] >= figures["accuracy_float"] - 0.01
    assert figures["logit_error_max"] < 0.05 * figures["logit_max"]
    assert figures["images"] == 360 and figures["evaluation_key_bytes"] < 800000

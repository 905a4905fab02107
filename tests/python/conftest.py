"""What the tests share. Run with Debian's python3: `/usr/bin/python3 -m pytest tests/python` after `make`."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "examples"), str(Path(__file__).resolve().parent)]
sys.dont_write_bytecode = True
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="hemi-test-state-")  # no test touches a home folder
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], True)
os.environ["PYTHONPATH"] = str(ROOT / "python")  # of the processes that tests start

import serving  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from hemi_fhe.torch.hybrid_model import HybridFHEModel  # noqa: E402

torch.set_num_threads(1)


class FCSmall(nn.Module):
    """The seeds' model."""

    def __init__(self, dim=10, out=None, bias=True):
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(dim, dim, bias=bias), nn.ReLU(), nn.Linear(dim, out or dim, bias=bias))

    def forward(self, x):
        return self.seq(x)


class Conv1D(nn.Module):
    """That of Hugging Face's transformers, which need not be installed for these tests: the weight is inputs x outputs."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5), nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return (x.reshape(-1, x.shape[-1]) @ self.weight + self.bias).reshape(x.shape[:-1] + (self.weight.shape[1],))


Conv1D.__module__ = "transformers.pytorch_utils"


class Deployment:
    """A model saved by its owner, and all that a client gets from it."""

    def __init__(self, folder, make=FCSmall, names="seq.0", inputs=None, model_name="model", seed=0, **options):
        torch.manual_seed(seed)
        self.make, self.names, self.model_name = make, names, model_name
        self.models, self.folder = folder, folder / model_name
        self.float = make().eval()
        model = make().eval()
        model.load_state_dict(self.float.state_dict())
        hybrid = HybridFHEModel(model, names, model_name=model_name)
        inputs = torch.randn(200, 10) if inputs is None else inputs
        hybrid.compile_model(inputs, **options)
        self.predicted = {n: m.info["predicted_error"] for n, m in hybrid.private_q_modules.items()}
        hybrid.save_and_clear_private_info(self.folder)
        self.cleared = hybrid

    def client(self, url, names=None, init=True, **options):
        model = self.make().eval()
        model.load_state_dict(torch.load(self.folder / "model.pth", weights_only=True), strict=False)
        hybrid = HybridFHEModel(model, names or self.names, server_remote_address=url, model_name=self.model_name)
        if init:
            hybrid.init_client(**options)
        return hybrid


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The seeds' model, deployed."""
    return Deployment(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def server(small):
    """hemi-server, as a process of its own, with that model."""
    with serving.hemi_server(small.models, "--quiet") as process:
        yield process


@pytest.fixture
def model():
    torch.manual_seed(1)
    return FCSmall().eval()


def close(a, b, tolerance=0.05):
    assert a.shape == b.shape, (a.shape, b.shape)
    assert a.dtype == b.dtype and a.device == b.device
    error = (a - b).abs().max().item() if a.numel() else 0.0
    assert error <= tolerance, error
    return error

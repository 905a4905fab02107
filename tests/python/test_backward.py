"""Gradients through remote modules: the transposed product is a second encrypted operation of the same module."""

import pytest
import serving
import torch
from conftest import Conv1D, Deployment, FCSmall, close
from torch import nn

from hemi_fhe import HemiUnsupportedError
from hemi_fhe.torch.hybrid_model import HybridFHEModel


class Adapted(nn.Module):
    """Frozen layers, which are remote, and a small one that is trained before them."""

    def __init__(self):
        super().__init__()
        self.adapter, self.a, self.b = nn.Linear(20, 20), nn.Linear(20, 30), Conv1D(10, 30)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x + self.adapter(x))))


def gradients(call, model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    (call(x) ** 2).mean().backward()
    return x.grad, model.adapter.weight.grad.clone()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("backward"), Adapted, ["a", "b"], torch.randn(50, 20), backward=True)


@pytest.fixture(scope="module")
def server(deployed):
    with serving.hemi_server(deployed.models, "--quiet") as process:
        yield process


def same_direction(a, b, tolerance=0.02):
    assert a.shape == b.shape
    assert (a - b).norm() <= tolerance * b.norm(), ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("mode", ["torch", "disable", "simulate", "execute"])
def test_modes_agree(mode):
    torch.manual_seed(3)
    model = Adapted()
    hybrid = HybridFHEModel(model, ["a", "b"])
    hybrid.compile_model(torch.randn(40, 20), backward=True)
    x = torch.randn(2, 3, 20)
    reference = gradients(lambda x: hybrid(x, fhe="torch"), model, x)
    for got, expected in zip(gradients(lambda x: hybrid(x, fhe=mode), model, x), reference):
        same_direction(got, expected)
    info = hybrid.private_q_modules
    assert sorted(info) == ["a", "a.T", "b", "b.T"]
    assert (info["a.T"].info["inputs"], info["a.T"].info["outputs"]) == (30, 20) and not info["a.T"].info["has_bias"]


def test_remote(deployed, server):
    client = deployed.client(server.url)
    x = torch.randn(4, 20)
    expected = gradients(deployed.float, deployed.float, x)
    client.model.adapter.load_state_dict(deployed.float.adapter.state_dict())
    for got, reference in zip(gradients(client, client.model, x), expected):
        same_direction(got, reference)
    stats = client.stats()["b"]
    assert stats["calls"] == 1 and stats["backward"]["calls"] == 1 and stats["backward"]["upload_bytes"] > 0
    # small gradients are as exact as large ones: every row has a scale of its own
    x = torch.randn(1, 20)
    x.requires_grad_()
    (client.model.b(torch.zeros(1, 30) + x[:, :1]) * 1e-20).sum().backward()
    assert 0 < x.grad.abs().max() < 1e-15


def test_client_files(deployed, server, tmp_path):
    client = deployed.client(server.url, path_to_clients=tmp_path)
    x = torch.randn(4, 20)
    gradients(client, client.model, x)
    assert (tmp_path / "a.T").is_dir()
    again = deployed.client(server.url, path_to_clients=tmp_path)
    assert set(again._session.opened) == {"a", "b", "a.T", "b.T"}
    gradients(again, again.model, x)
    assert again.stats()["a"]["backward"]["evaluation_key_bytes"] == 0  # went up with those of the forward products


def test_without_gradients_nothing_is_asked(deployed, server):
    client = deployed.client(server.url)
    with torch.no_grad():
        assert not client.model.a(torch.randn(2, 20).requires_grad_()).requires_grad
    assert not client.model.a(torch.randn(2, 20)).requires_grad
    assert client.model.a(torch.randn(2, 20).requires_grad_()).requires_grad
    assert "backward" not in client.stats()["a"]


def test_second_derivatives_are_refused(deployed, server):
    client = deployed.client(server.url)
    x = torch.randn(2, 20, requires_grad=True)
    (first,) = torch.autograd.grad(client.model.a(x).sum() ** 2, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_without_backward_the_error_says_what_to_do(tmp_path):
    deployed = Deployment(tmp_path, Adapted, ["a", "b"], torch.randn(50, 20))
    x = torch.randn(2, 20, requires_grad=True)
    model = Adapted()
    owner = HybridFHEModel(model, ["a", "b"])
    owner.compile_model(torch.randn(40, 20))
    for mode in ("disable", "execute"):
        with pytest.raises(HemiUnsupportedError, match=r"compile_model\(..., backward=True\)"):
            owner(x, fhe=mode).sum().backward()
    with serving.hemi_server(deployed.models, "--quiet") as server:
        client = deployed.client(server.url)
        y = client(x)
        with pytest.raises(HemiUnsupportedError, match=r"'b' has no transposed product.*no_grad"):
            y.sum().backward()


def test_what_has_no_transpose():
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.ReLU())
    hybrid = HybridFHEModel(model, ["0"])
    with pytest.raises(HemiUnsupportedError, match="backward=True takes Linear and Conv1D"):
        hybrid.compile_model(torch.randn(4, 8), backward=True)


def test_names_that_clash():
    model = nn.ModuleDict({"a": nn.Linear(4, 4)})
    model["a"].add_module("T", nn.Linear(4, 4))
    hybrid = HybridFHEModel(model, ["a.T"])
    assert list(hybrid.remote_modules) == ["a.T"]


def test_an_earlier_transpose_is_removed(tmp_path):
    for backward, there in ((True, True), (False, False)):
        hybrid = HybridFHEModel(FCSmall(), ["seq.0"])
        hybrid.compile_model(torch.randn(20, 10), backward=backward)
        hybrid.save_and_clear_private_info(tmp_path)
        assert any((tmp_path / "seq.0.T").glob("po_*_pc")) == there
        assert hybrid.private_q_modules == {}
        assert any((tmp_path / "seq.0").glob("po_*_pc"))


def test_optimisation_step_by_step(deployed, server):
    """A few steps of training give what they give with the float model."""
    client = deployed.client(server.url)
    client.model.adapter.load_state_dict(deployed.float.adapter.state_dict())
    local = Adapted()
    local.load_state_dict(deployed.float.state_dict())
    x, target = torch.randn(8, 20), torch.randn(8, 10)
    losses = []
    for model, call in ((local, local), (client.model, client)):
        optimizer = torch.optim.SGD(model.adapter.parameters(), lr=0.5)
        losses.append([])
        for _ in range(4):
            optimizer.zero_grad()
            loss = ((call(x) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]
    close(torch.tensor(losses[1]), torch.tensor(losses[0]), 0.01)

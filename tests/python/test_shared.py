"""Modules that receive the same tensor are served by one encryption and one request, and nothing stale is ever returned."""

import gc
import json
import threading
import zipfile

import pytest
import serving
import torch
from conftest import Conv1D, Deployment, close
from test_remote import posts
from torch import nn

from hemi_fhe.torch.hybrid_model import HybridFHEModel


class Attention(nn.Module):
    """q, k and v of the same input, of different widths, k without a bias; o gets what they make."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(48, 48), nn.Linear(48, 24, bias=False), Conv1D(24, 48)
        self.o = nn.Linear(48, 48)

    def forward(self, x):
        return self.o(torch.relu(self.q(x)) + torch.cat([self.k(x), torch.tanh(self.v(x))], -1))


NAMES = ["q", "k", "v", "o"]


def group(hybrid):
    return {name: module.info["input_group"] for name, module in hybrid.private_q_modules.items()}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return Deployment(tmp_path_factory.mktemp("shared"), Attention, NAMES, torch.randn(50, 48))


@pytest.fixture(scope="module")
def server(deployed):
    with serving.hemi_server(deployed.models, "--quiet") as process:
        yield process


@pytest.fixture
def client(deployed, server):
    client = deployed.client(server.url)
    client(torch.randn(1, 48))  # the biases are known from now on
    return client


def test_found_at_calibration():
    model = Attention()
    hybrid = HybridFHEModel(model, NAMES)
    hybrid.compile_model(torch.randn(20, 48))
    groups = group(hybrid)
    assert groups["q"] == groups["k"] == groups["v"] is not None and groups["o"] is None
    info = [hybrid.private_q_modules[n].info for n in "qkv"]
    for what in "set layout b_bits delta input_bits input_scale".split():
        assert len({i[what] for i in info}) == 1, what
    x = torch.randn(3, 48)
    reference = hybrid(x, fhe="torch")
    for mode in ("disable", "simulate", "execute"):
        close(hybrid(x, fhe=mode), reference, 0.1)


class Calls(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(8, 8), nn.Linear(8, 8), how

    def forward(self, x):
        return self.how(self, x)


def in_place(m, x):
    x = x.clone()
    y = m.a(x)
    return y + m.b(x.mul_(2))


def behind_torchs_back(m, x):
    x = x.clone()
    y = m.a(x)
    x.numpy()[:] *= 2
    return y + m.b(x)


@pytest.mark.parametrize(
    "how, shared",
    [
        (lambda m, x: m.a(x) + m.b(x), True),
        (lambda m, x: m.a(x) + m.b(x.view(x.shape)), True),
        (lambda m, x: m.a(x) + m.b(x) + m.a(x[:2]).sum(), False),
        (lambda m, x: m.a(x) + m.b(x.clone()), False),
        (lambda m, x: m.a(x) + m.b(m.a(x)), False),
        (lambda m, x: m.a(x[:3]) + m.b(x[3:6]), False),
        (in_place, False),
        (behind_torchs_back, False),
    ],
)
def test_only_the_very_same_tensor_counts(how, shared):
    hybrid = HybridFHEModel(Calls(how), ["a", "b"])
    hybrid.compile_model(torch.randn(7, 8))
    assert (group(hybrid)["a"] == group(hybrid)["b"] is not None) == shared


def test_recorded_calls_count_each_by_itself():
    hybrid = HybridFHEModel(Calls(lambda m, x: m.a(x) + m.b(x)), ["a", "b"])
    hybrid.set_fhe_mode("calibrate")
    hybrid(torch.randn(4, 8))
    hybrid(torch.randn(5, 8))
    hybrid.compile_model(None)
    assert group(hybrid)["a"] == group(hybrid)["b"] is not None


def test_very_different_modules_stay_alone():
    """One that would lose accuracy to its siblings is compiled by itself."""
    model = Calls(lambda m, x: m.a(x) + m.b(x))
    with torch.no_grad():
        model.a.bias.fill_(1000)
    hybrid = HybridFHEModel(model, ["a", "b"])
    hybrid.compile_model(torch.randn(7, 8))
    assert group(hybrid) == {"a": None, "b": None}


def test_the_group_says_nothing(deployed):
    """client.json has a random number, which is another one in every compilation."""
    assert json.loads(zipfile.ZipFile(deployed.folder / "q" / "po_1_48_pc" / "client.zip").read("client.json"))["input_group"]
    again = HybridFHEModel(Attention(), NAMES)
    again.compile_model(torch.randn(20, 48))
    once = HybridFHEModel(Attention(), NAMES)
    once.compile_model(torch.randn(20, 48))
    assert group(again)["q"] != group(once)["q"] and len(group(once)["q"]) == 32


def test_one_request(client, server, deployed):
    x = torch.randn(2, 3, 48)
    before = client.stats()
    y = client(x)
    close(y, deployed.float(x), 0.1)
    sent = {n: s["upload_bytes"] - before[n]["upload_bytes"] for n, s in client.stats().items()}
    assert sent["q"] > 0 and sent["o"] > 0 and sent["k"] == sent["v"] == 0
    assert all(s["calls"] == before[n]["calls"] + 1 and s["last"]["rows"] == 6 for n, s in client.stats().items())


def test_other_orders(client, deployed):
    model, x = client.model, torch.randn(4, 48)
    for order in ("vkq", "kqv", "qvk"):
        for name in order:
            close(getattr(model, name)(x), getattr(deployed.float, name)(x), 0.05)
        uploads = {name: client.stats()[name]["last"]["upload_bytes"] for name in "qkv"}
        assert [name for name in "qkv" if uploads[name]] == [order[0]]
        x = torch.randn(4, 48)


def uploads(client, name, x):
    y = getattr(client.model, name)(x)
    return y, client.stats()[name]["last"]["upload_bytes"] > 0


def test_nothing_stale(client, deployed):
    f, x = deployed.float, torch.randn(2, 48)

    def check(name, x, asked):
        client._session.shared._unused.clear()  # whether siblings are worth asking for is another test's
        y, sent = uploads(client, name, x)
        close(y, getattr(f, name)(x), 0.05)
        assert sent == asked, (name, sent)

    check("q", x, True)
    check("k", x.clone(), True)  # another object, although equal
    check("v", x, True)  # what was kept for x went when the other one came
    check("q", x, False)
    x.mul_(-1)
    check("k", x, True)  # changed in place
    x.numpy()[:] += 1
    check("v", x, True)  # changed where torch does not count
    x.data = torch.randn(2, 48)
    check("q", x, True)
    check("q", x, True)  # the same module again computes again
    check("k", x, False)
    check("k", x, True)  # each result is given once


def test_results_go_with_their_input(client):
    x = torch.randn(2, 48)
    client.model.q(x)
    kept = list(client._session.shared._kept().values())[0]
    assert sorted(kept.results) == ["k", "v"]
    del x
    gc.collect()
    assert kept.results == {} and kept.flat is None


def test_at_most_one_set_is_kept(client):
    inputs = [torch.randn(2, 48) for _ in range(3)]
    for x in inputs:
        client.model.q(x)
        assert len(client._session.shared._kept()) == 1
    assert list(client._session.shared._kept().values())[0].input() is inputs[-1]


def test_siblings_that_do_not_come_are_not_asked_for(server, deployed):
    client = deployed.client(server.url, prepare=False)  # sizes of calls that the background has prepared say nothing here
    client(torch.randn(1, 48))
    x = torch.randn(1, 48)
    sizes = []
    for _ in range(5):
        x = torch.randn(1, 48)
        client.model.q(x)
        sizes.append(client.stats()["q"]["last"]["download_bytes"])
    assert sizes[0] == sizes[1] > 2 * sizes[2] and sizes[2] == sizes[3] == sizes[4]
    close(client.model.k(x), deployed.float.k(x), 0.05)  # it comes after all
    y = torch.randn(1, 48)
    client.model.q(y)
    assert client.stats()["q"]["last"]["download_bytes"] == sizes[0]


def test_inference_mode_and_dtypes(client, deployed):
    with torch.inference_mode():
        x = torch.randn(2, 48)
        close(client.model.q(x), deployed.float.q(x), 0.05)
        _, sent = uploads(client, "k", x)
        assert not sent
    x = torch.randn(2, 48, dtype=torch.float64)
    assert client.model.q(x).dtype is torch.float64
    y, sent = uploads(client, "v", x)
    assert y.dtype is torch.float64 and not sent


def test_nan_is_refused_and_leaves_nothing(client, deployed):
    x = torch.randn(2, 48)
    x[1, 3] = float("nan")
    with pytest.raises(ValueError, match="not a number"):
        client.model.q(x)
    x[1, 3] = 0
    close(client.model.k(x), deployed.float.k(x), 0.05)


def test_threads_do_not_mix(client, deployed):
    errors = []

    def run(seed):
        try:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(8):
                x = torch.randn(2, 48, generator=generator)
                for name in "qkv":
                    close(getattr(client.model, name)(x), getattr(deployed.float, name)(x), 0.05)
        except BaseException as error:
            errors.append(error)

    shared = torch.randn(2, 48)

    def run_shared():
        try:
            for _ in range(8):
                for name in "qkv":
                    close(getattr(client.model, name)(shared), getattr(deployed.float, name)(shared), 0.05)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)] + [threading.Thread(target=run_shared) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []


def test_init_client_forgets(client, deployed):
    x = torch.randn(2, 48)
    client.model.q(x)
    client.init_client()
    y, sent = uploads(client, "k", x)
    assert sent
    close(y, deployed.float.k(x), 0.05)


def test_files_of_the_owner(deployed, server, tmp_path):
    """The client's own copies of the descriptions know the group too."""
    client = deployed.client(server.url, path_to_clients=tmp_path)
    again = deployed.client(server.url, path_to_clients=tmp_path)
    x = torch.randn(1, 48)
    again(x)
    close(again(x), deployed.float(x), 0.1)
    assert again.stats()["k"]["last"]["upload_bytes"] == 0
    assert client.stats()["q"]["calls"] == 0


def test_the_server_counts_one_request(client, server):
    before = posts(server.url)
    client(torch.randn(1, 48))
    assert posts(server.url) == before + 2 or posts(server.url) == before + 4  # q, k and v together; o

"""End to end: a client, and hemi-server as another process, over HTTP."""

import contextlib
import json
import os
import socket
import statistics
import threading
import time
import urllib.error
import urllib.request

import pytest
import serving
import torch
from conftest import Deployment, FCSmall, close
from torch import nn

from hemi_fhe import (
    HemiArgumentError,
    HemiConflictError,
    HemiConnectionError,
    HemiError,
    HemiNotFoundError,
    HemiShapeError,
    HemiStateError,
)
from hemi_fhe._native import ffi, lib
from hemi_fhe.deployment import HTTPServer
from hemi_fhe.torch._remote import connection_key
from hemi_fhe.torch.hybrid_model import HybridFHEMode, HybridFHEModel, RemoteModule


def posts(url):
    """How many encrypted inputs the server has answered."""
    with urllib.request.urlopen(url + "/metrics") as reply:
        text = reply.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if "infer" in line and "requests" in line.split("{")[0])


@pytest.fixture
def client(small, server):
    return small.client(server.url)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_the_page(small, server, host):
    """The page's own lines, the 1-D input of its last one included."""
    model = FCSmall().eval()
    model.load_state_dict(torch.load(small.folder / "model.pth", weights_only=True), strict=False)
    hybrid_model = HybridFHEModel(model, "seq.0", server_remote_address=f"http://{host}:{server.port}", model_name="model", verbose=False)
    hybrid_model.init_client(path_to_clients=small.folder / "clients")
    for module in hybrid_model.remote_modules.values():
        module.fhe_local_mode = HybridFHEMode.REMOTE
    x = torch.randn((10,))
    close(hybrid_model.forward(x), small.float(x).detach())


@pytest.mark.parametrize("shape", [(10,), (1, 10), (7, 10), (2, 3, 10), (2, 1, 3, 10), (0, 10), (600, 10)])
def test_ranks_and_rows(client, small, shape):
    x = torch.randn(*shape)
    close(client(x), small.float(x).detach())


def test_remote_is_remote(small, server):
    """The reference system's forward goes back to computing locally."""
    hybrid = small.client(server.url)
    x = torch.randn(2, 10)
    for set_mode in (lambda: hybrid.set_fhe_mode("remote"), lambda: setattr(hybrid.model.seq[0], "fhe_local_mode", HybridFHEMode.REMOTE)):
        set_mode()
        for call in (hybrid, hybrid.forward, hybrid.model):
            before = hybrid.stats()["seq.0"]["calls"]
            answered = posts(server.url)
            call(x)
            call(x)
            assert hybrid.stats()["seq.0"]["calls"] == before + 2
            assert posts(server.url) == answered + 2
            assert hybrid.model.seq[0].fhe_local_mode is HybridFHEMode.REMOTE


def test_replies_are_fresh(client):
    x = torch.randn(1, 10)
    assert not torch.equal(client(x), client(x))


def test_outside_the_calibrated_range(client, small):
    for factor in (1e-3, 50, 1e4):
        x = torch.randn(5, 10) * factor
        close(client.model.seq[0](x), small.float.seq[0](x).detach(), 0.02 * max(factor, 1))


def test_dtype(client, small):
    module = client.model.seq[0]
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        x = torch.randn(3, 10).to(dtype)
        y = module(x)
        assert y.dtype is dtype
        assert (y.float() - small.float.seq[0](x.float())).abs().max() < 0.1


def test_a_client_has_no_weights(client):
    assert client.private_modules == {"seq.0": None}
    assert client.model.seq[0].private_module is None
    for mode in ("torch", "disable", "simulate", "execute"):
        with pytest.raises(HemiStateError, match="remote"):
            client(torch.zeros(1, 10), fhe=mode)
    assert client.model.seq[0].fhe_local_mode is HybridFHEMode.REMOTE
    client(torch.zeros(1, 10))


def test_without_init_client(small, server):
    """The address is known: the first call gets ready by itself."""
    hybrid = small.client(server.url, init=False)
    x = torch.randn(4, 10)
    close(hybrid(x), small.float(x).detach())


def test_remote_without_a_server(model):
    hybrid = HybridFHEModel(model, "seq.0")
    hybrid.set_fhe_mode("remote")
    for attempt in (lambda: hybrid(torch.zeros(1, 10)), hybrid.init_client):
        with pytest.raises(HemiStateError) as raised:
            attempt()
        assert "server_remote_address" in str(raised.value) and "init_client" in str(raised.value)


def test_owner_becomes_client(tmp_path):
    """The older page goes on with the very model that was saved and cleared."""
    d = Deployment(tmp_path)
    with serving.hemi_server(d.models, "--quiet") as s:
        hybrid = HybridFHEModel(d.cleared.model, "seq.0", server_remote_address=s.url)
        assert not any(isinstance(m, RemoteModule) for m in hybrid.model.seq[0].children())
        hybrid.init_client()
        x = torch.randn(4, 10)
        close(hybrid(x), d.float(x).detach())


def test_owner_compares_before_it_clears(tmp_path, model):
    """An object that has compiled keeps its weights when it becomes a client too."""
    hybrid = HybridFHEModel(model, "seq.0", server_remote_address="http://127.0.0.1:9")
    hybrid.compile_model(torch.randn(50, 10))
    with pytest.raises(HemiConnectionError):
        hybrid.init_client(timeout=1, connect_timeout=1)
    x = torch.randn(3, 10)
    close(hybrid(x, fhe="execute"), hybrid(x, fhe="torch").detach())


def test_default_names(model):
    hybrid = HybridFHEModel(model, "seq.0")
    assert hybrid.model_name == "model" and hybrid.server_remote_address is None


def test_stats(client):
    remote = client.model.seq[0]
    client(torch.randn(3, 10))
    first = dict(remote.last_stats)
    assert first["rows"] == 3 and first["evaluation_key_bytes"] > 0
    client(torch.randn(10))
    last = remote.last_stats
    assert last["evaluation_key_bytes"] == 0  # they are sent once
    assert 0 < last["upload_bytes"] < 1024 and 0 < last["download_bytes"] < 13 * 1024
    assert all(last[k] >= 0 for k in ("encrypt_ms", "network_ms", "server_ms", "decrypt_ms")) and last["server_ms"] > 0
    total = client.stats()["seq.0"]
    assert total["calls"] == 2 and total["rows"] == 4 and total["last"] == last
    assert total["upload_bytes"] == first["upload_bytes"] + last["upload_bytes"]


def test_alias_on_either_side(tmp_path):
    """The folder is named as the owner spelled it; the application may spell it the other way."""
    for spelled, other in (("seq_0", "seq.0"), ("seq.0", "seq_0")):
        d = Deployment(tmp_path / spelled, names=spelled, model_name="FCSmall")
        assert (d.folder / spelled / "po_1_10_pc").is_dir()
        with serving.hemi_server(d.models, "--quiet") as s:
            x = torch.randn(2, 10)
            for names in (spelled, other, [other]):
                close(d.client(s.url, names=names)(x), d.float(x).detach())


def test_several_modules_share_keys(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(10, 300), nn.Linear(300, 40), nn.Linear(40, 10)

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    d = Deployment(tmp_path, make=Model, names=["a", "b", "c"], model_name="three")
    with serving.hemi_server(d.models, "--quiet") as s:
        hybrid = d.client(s.url)
        x = torch.randn(3, 10)
        close(hybrid(x), d.float(x).detach(), 0.1)
        uploads = [stats["evaluation_key_bytes"] for stats in hybrid.stats().values()]
        assert sum(n > 0 for n in uploads) == 1  # once for all modules
        hybrid(x)
        assert [stats["evaluation_key_bytes"] for stats in hybrid.stats().values()] == uploads
    assert torch.load(d.folder / "model.pth", weights_only=True) == {}


# ---- files and keys of the client


def test_client_files_are_kept_and_used(small, server, tmp_path):
    folder = tmp_path / "clients"
    small.client(server.url, path_to_clients=folder)
    stored = folder / "seq.0" / "po_1_10_pc" / "client.zip"
    assert stored.is_file() and not stored.with_name("server.zip").exists()
    # from then on no server is needed to get ready
    offline = small.client("http://127.0.0.1:9", path_to_clients=folder)
    assert offline.model.seq[0].clients.keys() == {"po_1_10_pc"}
    with pytest.raises(HemiConnectionError):
        small.client("http://127.0.0.1:9", timeout=2, connect_timeout=1)
    online = small.client(server.url, path_to_clients=str(folder))
    x = torch.randn(2, 10)
    close(online(x), small.float(x).detach())


def test_model_folder_as_client_folder(small, server):
    hybrid = small.client(server.url, path_to_clients=small.folder)
    x = torch.randn(2, 10)
    close(hybrid(x), small.float(x).detach())


def test_keys_in_a_folder(small, server, tmp_path):
    folder = tmp_path / "keys"
    small.client(server.url, path_to_keys=folder)(torch.randn(1, 10))
    keys = [f for f in folder.iterdir() if f.is_file()]
    assert keys and all(f.stat().st_mode & 0o077 == 0 for f in keys)
    before = {f.name: f.read_bytes() for f in keys}
    x = torch.randn(2, 10)
    close(small.client(server.url, path_to_keys=str(folder))(x), small.float(x).detach())
    assert {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()} == before


def test_keys_differ_between_clients(small, server):
    a, b = small.client(server.url), small.client(server.url)
    x = torch.randn(2, 10)
    close(a(x), b(x))
    assert a.stats()["seq.0"]["evaluation_key_bytes"] > 0 and b.stats()["seq.0"]["evaluation_key_bytes"] > 0


# ---- servers that go away, change, or were never there


def test_no_server(small):
    hybrid = small.client("http://127.0.0.1:9", init=False)
    with pytest.raises(HemiConnectionError) as raised:
        hybrid.init_client(timeout=2, connect_timeout=1)
    assert isinstance(raised.value, ConnectionError) and isinstance(raised.value, HemiError)
    assert raised.value.status == -15 and "127.0.0.1:9" in str(raised.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999999"])
def test_wrong_url(small, url):
    with pytest.raises((HemiArgumentError, HemiConnectionError)):
        small.client(url, timeout=2, connect_timeout=1)


def test_unknown_model_and_module(small, server, model):
    with pytest.raises(HemiNotFoundError) as raised:
        HybridFHEModel(model, "seq.0", server_remote_address=server.url, model_name="no-such").init_client()
    assert "no-such" in str(raised.value) and isinstance(raised.value, LookupError)
    with pytest.raises(HemiNotFoundError, match=r"seq\.2"):
        HybridFHEModel(FCSmall(), "seq.2", server_remote_address=server.url).init_client()


def test_wrong_features(client):
    with pytest.raises(HemiShapeError, match="10 features"):
        client.model.seq[0](torch.zeros(2, 11))
    client(torch.zeros(1, 10))


def test_server_restart(tmp_path):
    """The keys are gone with the server, or the connection is: the client puts both right by itself."""
    d = Deployment(tmp_path)
    x = torch.randn(3, 10)
    with serving.hemi_server(d.models, "--quiet") as s:
        hybrid = d.client(s.url)
        close(hybrid(x), d.float(x).detach())
        port = s.port
    with pytest.raises(HemiConnectionError):
        hybrid(x)
    with serving.Server([serving.PROGRAM, d.models, "--port", port, "--json", "--quiet", *serving.LOCAL]):
        close(hybrid(x), d.float(x).detach())
        close(hybrid(x), d.float(x).detach())


def test_module_that_changed(tmp_path):
    """New weights on the server: a clear error, and init_client() puts it right, stored client files included."""
    d = Deployment(tmp_path / "server")
    x, clients = torch.randn(3, 10), tmp_path / "clients"
    with serving.hemi_server(d.models, "--quiet") as s:
        hybrid = d.client(s.url, path_to_clients=clients)
        hybrid(x)
        port = s.port
    d = Deployment(tmp_path / "server", seed=1)
    with serving.Server([serving.PROGRAM, d.models, "--port", port, "--json", "--quiet", *serving.LOCAL]):
        with pytest.raises(HemiConflictError, match="init_client"):
            hybrid(x)
        hybrid.init_client(path_to_clients=clients)
        close(hybrid.model.seq[0](x), d.float.seq[0](x).detach())
        close(d.client(f"http://127.0.0.1:{port}", path_to_clients=clients)(x), d.float(x).detach())


def test_wrong_bodies_leave_the_server_up(client, server, small):
    client(torch.randn(1, 10))
    url = f"{server.url}/v2/models/model/infer"
    for body in (b"", b"x", bytes(40), os.urandom(5000)):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"))
        assert 400 <= raised.value.code < 500
        assert set(json.load(raised.value)["error"]) >= {"code", "message"}
    x = torch.randn(1, 10)
    close(client(x), small.float(x).detach())


class Proxy:
    """Passes bytes on between a client and the server, and keeps them."""

    def __init__(self, port):
        self.target, self.connections, self.up, self.down = port, 0, b"", b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self.target))
            for a, b, name in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pass, args=(a, b, name), daemon=True).start()

    def _pass(self, a, b, name):
        try:
            while data := a.recv(1 << 16):
                setattr(self, name, getattr(self, name) + data)
                b.sendall(data)
        except OSError:
            pass
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def test_what_travels(small, server):
    """One connection for all calls; no input, output or private weight in the clear; nothing twice."""
    with Proxy(server.port) as proxy:
        hybrid = small.client(proxy.url, prepare=False)  # which has a connection of its own
        hybrid(torch.ones(10))
        proxy.connections, sent = 0, set()
        x = torch.randn(10)
        for _ in range(10):
            proxy.up = b""
            y = hybrid.model.seq[0](x)
            sent.add(proxy.up[-500:])
        assert proxy.connections == 0 and len(sent) == 10
        proxy.up = proxy.up + b""
        y = hybrid.model.seq[0](x)
        for secret in (x, y, small.float.seq[0].weight.detach(), small.float.seq[0].bias.detach()):
            data = secret.numpy().tobytes()
            for i in range(0, len(data) - 8, 4):
                assert data[i : i + 8] not in proxy.up + proxy.down


def test_progress_of_many_rows(small, server, capfd):
    client = small.client(server.url)
    client._session.verbose = 1
    x = torch.randn(3, 400, 10)
    close(client.model.seq[0](x), small.float.seq[0](x))
    shown = capfd.readouterr().err
    assert "[##############################] 1200/1200 rows\n" in shown
    stats = client.stats()["seq.0"]
    assert stats["calls"] == 1 and stats["requests"] == 3 and stats["rows"] == stats["last"]["rows"] == 1200
    client.model.seq[0](x[:, :1])
    assert capfd.readouterr().err == ""
    client._session.verbose = 0
    client.model.seq[0](x)
    assert capfd.readouterr().err == "" and client.stats()["seq.0"]["requests"] == 5


def test_prepared_now(tmp_path):
    """What was prepared makes a call's messages small; its results are as exact."""
    deployed = Deployment(tmp_path, lambda: FCSmall(300), "seq.0", torch.randn(20, 300))
    with serving.hemi_server(deployed.models, "--quiet") as server:
        client = deployed.client(server.url, prepare=False)
        module, reference = client.model.seq[0], deployed.float.seq[0]
        x = torch.randn(2, 300)
        module(x)
        close(module(x), reference(x), 0.05)
        plain = module.last_stats
        assert plain["prepared_rows"] == 0
        client.init_client(prepare=True, prepare_rows=64)
        assert module.prepare(32) >= 32
        for _ in range(3):
            x = torch.randn(2, 300)
            close(module(x), reference(x), 0.05)
        assert module.last_stats["prepared_rows"] == 2
        assert module.last_stats["download_bytes"] < plain["download_bytes"] / 3
        assert client.stats()["seq.0"]["prepared_rows"] >= 4


def test_time_out(small):
    """A server that takes the request and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hybrid = small.client("http://127.0.0.1:%d" % silent.getsockname()[1], init=False)
        start = time.perf_counter()
        with pytest.raises(HemiConnectionError):
            hybrid.init_client(timeout=0.5, connect_timeout=0.5)
        assert time.perf_counter() - start < 10


# ---- threads, forks, speed


def test_threads(client, small):
    errors = []

    def call(seed):
        try:
            for i in range(15):
                x = torch.randn(1 + i % 3, 10, generator=torch.Generator().manual_seed(100 * seed + i))
                close(client(x), small.float(x).detach())
        except BaseException as error:
            errors.append(error)

    client(torch.zeros(1, 10))
    keys = client.stats()["seq.0"]["evaluation_key_bytes"]
    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    total = client.stats()["seq.0"]
    assert total["calls"] == 121
    assert total["evaluation_key_bytes"] == keys > 0  # further connections do not send them again


def test_other_threads_run_during_a_call(tmp_path):
    """The interpreter's lock is released in C."""
    d = Deployment(tmp_path, make=lambda: nn.Sequential(nn.Linear(10, 10)), names="0")
    with serving.hemi_server(d.models, "--quiet") as s:
        hybrid = d.client(s.url)
        hybrid(torch.randn(1, 10))
        steps, stop = [0], threading.Event()

        def count():
            while not stop.is_set():
                steps[0] += 1
                time.sleep(0.001)

        thread = threading.Thread(target=count)
        thread.start()
        start = time.perf_counter()
        hybrid(torch.randn(2000, 10))
        seconds, during = time.perf_counter() - start, steps[0]
        stop.set()
        thread.join()
        assert during >= min(50, seconds * 1000 / 10)


def test_a_forked_child_is_refused(client, small):
    x = torch.randn(1, 10)
    client(x)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            client(x)
            os.write(write, b"no error")
        except HemiStateError as error:
            os.write(write, b"refused: " + str(error).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    answer = os.read(read, 1000).decode()
    os.close(read)
    assert answer.startswith("refused") and "init_client" in answer
    close(client(x), small.float(x).detach())  # the parent goes on


def test_a_forked_child_can_start_anew(client, small):
    x = torch.randn(2, 10)
    expected = small.float(x).detach()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            client.init_client()
            code = 0 if (client(x) - expected).abs().max() < 0.05 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    close(client(x), expected)


def test_keys_and_connections_are_not_pickled(client):
    import copy
    import pickle

    client(torch.zeros(1, 10))
    session = client.model.seq[0]._session
    for secret in (session.keys(), session._free[0], client.model.seq[0], client.model):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            if secret is client.model and attempt is copy.copy:
                continue  # shallow: shares the remote module
            with pytest.raises(TypeError):
                attempt(secret)


def test_speed(client):
    """10 x 10 over loopback HTTP: under 2 ms at the median, from Python."""
    x = torch.randn(10)
    client(x)
    medians = []
    for _ in range(5):
        times = []
        for _ in range(100):
            start = time.perf_counter()
            client.model.seq[0](x)
            times.append((time.perf_counter() - start) * 1000)
        medians.append(statistics.median(times))
    print(f"10 x 10 over HTTP from Python: {min(medians):.3f} ms")
    assert min(medians) < 2


# ---- the server in this process


def test_server_in_this_process(small):
    with HTTPServer(small.models, port=0) as s:
        x = torch.randn(3, 10)
        close(small.client(s.url)(x), small.float(x).detach())
        url = s.url
    with pytest.raises(OSError):
        urllib.request.urlopen(url + "/v2/health/live", timeout=2)
    s.stop()  # twice is fine


def test_a_model_folder_is_served_under_its_name(small):
    with HTTPServer(small.folder, port=0) as s:
        x = torch.randn(3, 10)
        close(small.client(s.url)(x), small.float(x).detach())


def test_server_without_models(tmp_path):
    with pytest.raises(HemiError):
        HTTPServer(tmp_path, port=0)
    with pytest.raises(HemiError):
        HTTPServer(tmp_path / "nothing", port=0)


def test_prepared_calls(small, server):
    """Coming calls are prepared in the background; results are the same, and `last` says how many rows were."""
    client = small.client(server.url, prepare="on")
    module = client.remote_modules["seq.0"]
    x = torch.randn(1, 10)
    close(client(x), small.float(x).detach())
    for _ in range(1000):
        if module.last_stats["prepared_rows"] == 1:
            break
        time.sleep(0.01)
        close(client(x), small.float(x).detach())
    assert module.last_stats["prepared_rows"] == 1
    client = small.client(server.url, prepare="off")
    for _ in range(4):
        close(client(x), small.float(x).detach())
        time.sleep(0.02)
    assert client.remote_modules["seq.0"].last_stats["prepared_rows"] == 0
    with pytest.raises(HemiArgumentError, match="'auto', 'on' or 'off'"):
        small.client(server.url, prepare="perhaps")(x)


def outputs_of(connection, operation, module):
    info = ffi.new("hemi_module_info *")
    lib.hemi_module_get_info(lib.hemi_remote_module(connection._remotes[connection_key(operation, module)]), info)
    return info.outputs


def test_a_new_description_replaces_the_old(client, tmp_path):
    """Of the same input shape and other outputs: memory for the results follows from the new one, and so must what is written."""
    session = client._session
    old = session.opened["seq.0"]
    other = Deployment(tmp_path, lambda: FCSmall(out=4), "seq.2")
    new = RemoteModule._from_folder(other.folder, ["seq.2"])
    assert old.modules[0].shape == new.modules[0].shape and old.modules[0].outputs == 10 and new.modules[0].outputs == 4
    with session.connection() as connection:
        assert outputs_of(connection, "seq.0", old.modules[0]) == 10
    session.opened["seq.0"] = new
    with session.connection() as connection:
        assert outputs_of(connection, "seq.0", new.modules[0]) == 4
    session.opened.pop("seq.0")  # another thread, between a call's choice and its connection
    with session.connection([("seq.0", old.modules[0])]) as connection:
        assert outputs_of(connection, "seq.0", old.modules[0]) == 10


def test_a_connection_from_before_a_reset_is_not_given_back(client, monkeypatch):
    session, connect = client._session, client._session.connect

    def connect_late(*args):
        connection = connect(*args)
        session.reset()  # another thread
        return connection

    session.reset()
    monkeypatch.setattr(session, "connect", connect_late)
    with session.connection():
        pass
    assert session._free == []

"""More than one server: PostgreSQL, two servers and nginx with the shipped configuration, of Debian's packages, on 127.0.0.1."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest
import serving
import torch
from conftest import ROOT, close
from services import Nginx, Postgres, postgres_programs
from test_tenants import hemi

from hemi_fhe.errors import HemiAuthError, HemiBudgetError

pytestmark = pytest.mark.skipif(not postgres_programs() or not shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"),
                                reason="PostgreSQL or nginx is not installed: make deps")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postgres")
    for path in [folder, *folder.parents]:  # another user than root reads it
        if path.owner() == "root" and str(path).startswith("/tmp/"):
            path.chmod(0o711)
    with Postgres(folder) as process:
        yield process


def test_store_in_postgresql(postgres):
    """The tests of the store, which run on SQLite otherwise."""
    program = ROOT / os.environ.get("BUILD", "build") / "tests" / "test_store"
    run = subprocess.run([str(program)], env={**os.environ, "HEMI_TEST_STORE": postgres.url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert run.returncode == 0 and "[  PASSED  ] 8 test(s)." in run.stdout, run.stdout


class Replica:
    """One of several servers of a store, which can be killed and started again on the same port."""

    def __init__(self, models, store, log, *arguments):
        self.command, self.log, self.port, self.server = [serving.PROGRAM, models, "--json", "--store", store, *arguments], log, 0, None

    def start(self):
        with open(self.log, "ab") as stream:
            self.server = serving.Server([*self.command, "--port", str(self.port)], stderr=stream)
        self.port = self.server.port

    def kill(self):
        os.kill(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()

    def stop(self):
        if self.server:
            self.server.stop()

    def lines(self, method, route=""):
        return [line for line in self.log.read_text().splitlines() if f"method={method} " in line and route in line]


class Cluster:
    def __init__(self, stack, folder, small, postgres, *arguments):
        self.store, self.small = postgres.url, small
        self.token = hemi("tenants", "add", f"alice-{folder.name}", "--store", self.store).strip()
        self.replicas = [Replica(small.models, self.store, folder / f"log{i}", *arguments) for i in (1, 2)]
        for replica in self.replicas:
            stack.callback(replica.stop)
            replica.start()
        self.nginx = stack.enter_context(Nginx(folder, [r.port for r in self.replicas]))

    def client(self, **options):
        return self.small.client(self.nginx.url, **{"token": self.token, "ca_file": self.nginx.certificate, "prepare": False, **options})


@pytest.fixture
def cluster(tmp_path, small, postgres):
    with contextlib.ExitStack() as stack:
        yield Cluster(stack, tmp_path, small, postgres)


class Load:
    """Clients that call on and on; every result is looked at."""

    def __init__(self, cluster, clients):
        self.over, self.failures, self.calls, self.slowest = threading.Event(), [], 0, 0.0
        self.cluster, self.lock = cluster, threading.Lock()
        self.models = [cluster.client() for _ in range(clients)]
        self.threads = [threading.Thread(target=self.work, args=(m, i)) for i, m in enumerate(self.models)]

    def work(self, model, seed):
        x = torch.randn(2, 10, generator=torch.Generator().manual_seed(seed))
        wanted = self.cluster.small.float(x)
        while not self.over.is_set():
            start = time.monotonic()
            try:
                close(model(x), wanted)
            except BaseException as error:  # noqa: BLE001 (counted, and shown)
                with self.lock:
                    self.failures.append(error)
            with self.lock:
                self.calls, self.slowest = self.calls + 1, max(self.slowest, time.monotonic() - start)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for t in self.threads:
            t.join()


def test_replica_is_killed_under_load(cluster, capsys):
    first, second = cluster.replicas
    with Load(cluster, 8) as load:
        time.sleep(2)
        before = load.calls
        spread = [len(r.lines("POST")) for r in cluster.replicas]
        assert all(spread), f"one server gets everything: {spread}"
        first.kill()
        time.sleep(2)
        during = load.calls
        first.start()
        time.sleep(6)  # nginx asks it again after five seconds
        again = len(first.lines("POST")) - spread[0]
    assert not load.failures, (len(load.failures), load.failures[0])
    assert during > before, "nothing went on after the kill"
    assert again > 0, "the server that came back gets nothing"
    assert len(first.lines("PUT")) + len(second.lines("PUT")) == 8, "keys were uploaded more than once, though the servers share them"
    with capsys.disabled():
        print(f" {load.calls} calls, 0 lost, slowest {1e3 * load.slowest:.0f} ms; keys uploaded once each ", end="")


def test_stop_loses_nothing(cluster):
    """SIGTERM: what is under way is answered, the rest goes to the other one."""
    with Load(cluster, 4) as load:
        time.sleep(1)
        cluster.replicas[1].server.stop()
        time.sleep(2)
        cluster.replicas[1].start()
        time.sleep(1)
        cluster.replicas[0].server.process.send_signal(signal.SIGHUP)
        time.sleep(1)
    assert not load.failures, load.failures[0]
    assert "reloaded" in cluster.replicas[0].log.read_text()


def test_tenants_and_counters_are_shared(cluster):
    model, x = cluster.client(), torch.randn(1, 10)
    model(x)
    name = cluster.token and json.loads(hemi("tenants", "list", "--store", cluster.store, "--json"))["tenants"]
    mine = next(t for t in name if t["tenant"].startswith("alice-") and t["keys"] == 1 and not t["revoked"])["tenant"]
    rows = sum(c["rows"] for c in json.loads(hemi("audit", "--store", cluster.store, "--tenant", mine, "--json"))["counts"])
    assert rows > 0
    hemi("tenants", "revoke", mine, "--store", cluster.store)
    end = time.monotonic() + 15
    with pytest.raises(HemiAuthError):
        while time.monotonic() < end:
            model(x)
            time.sleep(0.2)
    with pytest.raises(HemiAuthError):
        cluster.client()(x)


def test_budget_holds_over_all_servers(tmp_path, small, postgres):
    with contextlib.ExitStack() as stack:
        cluster = Cluster(stack, tmp_path, small, postgres, "--budget", "9")  # 99 rows
        for _ in range(4):  # of one tenant; keys, and so servers, of their own
            with contextlib.suppress(HemiBudgetError):
                model = cluster.client()
                for _ in range(100):
                    model(torch.randn(1, 10))
        tenant = f"alice-{tmp_path.name}"
        counts = json.loads(hemi("audit", "--store", cluster.store, "--tenant", tenant, "--json"))["counts"]
        assert sum(c["rows"] for c in counts) <= 99
        served = sum(int(line.split(" rows=")[1].split()[0]) for r in cluster.replicas for line in r.lines("POST") if "status=200" in line)
        assert 50 <= served <= 99

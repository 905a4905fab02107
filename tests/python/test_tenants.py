"""Servers with tenants and TLS, as processes of their own: `hemi tenants`, tokens and certificates of clients."""

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import serving
import torch
from conftest import ROOT, close

from hemi_fhe.errors import HemiArgumentError, HemiAuthError, HemiConnectionError

HEMI = ROOT / os.environ.get("BUILD", "build") / "bin" / "hemi"


def hemi(*arguments, status=0, **environment):
    run = subprocess.run([str(HEMI), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                         env={**os.environ, **environment})
    assert run.returncode == status, (run.returncode, run.stdout, run.stderr)
    return run.stdout if status == 0 else run.stderr


def make_certificate(folder, name="127.0.0.1"):
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=IP:{name}", "-keyout", str(key), "-out", str(certificate)], check=True, stderr=subprocess.DEVNULL)
    key.chmod(0o600)
    return certificate, key


class Site:
    """The small model behind TLS, with tenants in its store."""

    def __init__(self, folder, deployment):
        self.folder, self.deployment, self.store = folder, deployment, folder / "store.db"
        self.certificate, self.key = make_certificate(folder)
        self.token = hemi("tenants", "add", "alice", "--store", self.store).strip()

    def server(self, *arguments, **options):
        server = serving.Server([serving.PROGRAM, self.deployment.models, "--port", "0", "--json", "--store", self.store, "--tls-cert", self.certificate,
                                 "--tls-key", self.key, *arguments], **options)
        server.url = f"https://127.0.0.1:{server.port}"
        return server

    def get(self, server, path, token=None):
        context = ssl.create_default_context(cafile=str(self.certificate))
        request = urllib.request.Request(server.url + path, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def client(self, server, **options):
        return self.deployment.client(server.url, **{"token": self.token, "ca_file": self.certificate, **options})


@pytest.fixture(scope="module")
def site(tmp_path_factory, small):
    return Site(tmp_path_factory.mktemp("site"), small)


@pytest.fixture(scope="module")
def tls(site):
    with site.server("--quiet") as server:
        yield server


# ---- `hemi tenants`


@pytest.mark.parametrize("place", ["--file", "--store"])
def test_tenants_command(tmp_path, place):
    where = tmp_path / "deep" / "tenants" if place == "--store" else tmp_path / "tenants"
    token = hemi("tenants", "add", "alice", place, where).strip()
    assert token.startswith("hemi_") and len(token) == 69
    assert (where.stat().st_mode & 0o777) == 0o600 and token.encode() not in where.read_bytes()
    made = json.loads(hemi("tenants", "add", "boss", "--operator", place, where, "--json"))
    assert made["role"] == "operator" and made["token"] != token
    assert "already" in hemi("tenants", "add", "alice", place, where, status=17)
    assert "no name of a tenant" in hemi("tenants", "add", "../x", place, where, status=2)
    assert "revoked" in hemi("tenants", "revoke", "alice", place, where)
    assert "no tenant alice" in hemi("tenants", "revoke", "alice", place, where, status=10)
    listed = {t["tenant"]: t for t in json.loads(hemi("tenants", "list", place, where, "--json"))["tenants"]}
    assert listed["alice"]["revoked"] and listed["boss"]["revoked"] is None
    text = hemi("tenants", "list", place, where)
    assert "operator" in text and token not in text
    assert hemi("tenants", "add", "alice", place, where).strip() != token


def test_tenants_help():
    for verb in ("add", "list", "revoke"):
        assert "example:" in hemi("tenants", verb, "--help")
    assert "usage: hemi tenants" in hemi("tenants", status=64)
    assert "there is no 'x'" in hemi("tenants", "x", status=64)


# ---- TLS and tokens


def test_calls_over_tls(site, tls):
    model, x = site.client(tls), torch.randn(3, 10)
    close(model(x), site.deployment.float(x))


def test_token_of_the_environment(site, tls, monkeypatch):
    monkeypatch.setenv("HEMI_TOKEN", site.token)
    x = torch.randn(2, 10)
    close(site.client(tls, token=None)(x), site.deployment.float(x))


def test_wrong_tokens(site, tls):
    for token in (None, "hemi_" + 64 * "0", "x"):
        with pytest.raises(HemiAuthError, match="token"):
            site.client(tls, token=token)(torch.randn(1, 10))
    with pytest.raises(HemiArgumentError, match="token"):
        site.client(tls, token="two words")(torch.randn(1, 10))


def test_certificates_are_verified(site, tls, tmp_path):
    other, _ = make_certificate(tmp_path)
    for ca in (None, other):
        with pytest.raises(HemiConnectionError, match="certificate"):
            site.client(tls, ca_file=ca)(torch.randn(1, 10))


def test_token_never_in_the_clear(site):
    with pytest.raises(HemiArgumentError, match="in the clear"):
        site.deployment.client("http://192.0.2.1:8000", token=site.token)(torch.randn(1, 10))


def test_hemi_call_over_tls(site, tls, tmp_path):
    import numpy

    x, y, token = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "token"
    numpy.save(x, torch.randn(2, 10).numpy())
    token.write_text(site.token + "\n")
    call = ["call", tls.url, "model", "seq.0", "--input", x, "--output", y, "--ca", site.certificate]
    hemi(*call, "--token-file", token)
    hemi(*call, HEMI_TOKEN=site.token)
    assert "HEMI_ERR_AUTH" in hemi(*call, status=21)
    weight = site.deployment.float.seq[0]
    close(torch.from_numpy(numpy.load(y)), weight(torch.from_numpy(numpy.load(x))).detach())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(site, tls):
    context = ssl.create_default_context(cafile=str(site.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")  # the client would
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((urllib.error.URLError, ssl.SSLError)):
        urllib.request.urlopen(tls.url + "/v2/health/live", context=context, timeout=10)


def test_many_clients_over_tls(site, tls):
    import threading

    failures = []

    def work(seed):
        try:
            model, x = site.client(tls), torch.randn(64, 10, generator=torch.Generator().manual_seed(seed))
            for _ in range(20):
                close(model(x), site.deployment.float(x))
        except Exception as error:  # noqa: BLE001 (shown below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]


def test_slow_handshakes_are_cut(site):
    import socket

    with site.server("--quiet", "--header-timeout", "1") as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
        start = time.monotonic()
        for s in silent:
            s.settimeout(10)
            assert s.recv(1) == b""  # closed by the server
        assert time.monotonic() - start < 8
        assert site.get(server, "/v2/health/ready")[0] == 200


# ---- keys outlive the server


def test_restart_keeps_keys(site, tmp_path):
    port = None
    keys, x = tmp_path / "keys", torch.randn(2, 10)
    with site.server() as server:
        port = server.port
        model = site.client(server, path_to_keys=keys)
        close(model(x), site.deployment.float(x))
    log = tmp_path / "log"
    with open(log, "wb") as stream, site.server("--port", port, stderr=stream) as server:
        close(model(x), site.deployment.float(x))
    text = log.read_text()
    assert "route=/v2/models/{model}/infer" in text and "method=PUT" not in text and "tenant=alice" in text
    assert site.token not in text


def test_killed_server_keeps_keys(site, tmp_path):
    log, x = tmp_path / "log", torch.randn(2, 10)
    with site.server("--quiet") as server:
        model = site.client(server)
        close(model(x), site.deployment.float(x))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        with open(log, "wb") as stream, site.server("--port", server.port, stderr=stream):
            close(model(x), site.deployment.float(x))
    assert "method=PUT" not in log.read_text()

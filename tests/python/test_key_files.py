"""Secret key files under a passphrase or a keyring, from Python and from the command line."""

import json
import sys
import types

import pytest
import torch
from conftest import close
from test_tenants import hemi

from hemi_fhe.errors import HemiArgumentError, HemiAuthError, HemiStateError, HemiUnsupportedError


def test_init_client_with_a_passphrase(small, server, tmp_path):
    x = torch.randn(2, 10)
    close(small.client(server.url, path_to_keys=tmp_path, passphrase="correct horse")(x), small.float(x))
    (key,) = tmp_path.glob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    close(small.client(server.url, path_to_keys=tmp_path, passphrase="correct horse")(x), small.float(x))
    with pytest.raises(HemiAuthError, match="passphrase"):
        small.client(server.url, path_to_keys=tmp_path, passphrase="wrong")(x)
    with pytest.raises(HemiStateError, match="encrypted"):
        small.client(server.url, path_to_keys=tmp_path)(x)
    with pytest.raises(HemiArgumentError, match="path_to_keys"):
        small.client(server.url, passphrase="correct horse")


def test_keyring(small, server, tmp_path, monkeypatch):
    """With a keyring of the interface that the package keyring has."""
    kept = {}
    ring = types.ModuleType("keyring")
    ring.get_password = lambda service, name: kept.get((service, name))
    ring.set_password = lambda service, name, password: kept.__setitem__((service, name), password)
    monkeypatch.setitem(sys.modules, "keyring", ring)
    x = torch.randn(1, 10)
    for _ in range(2):
        close(small.client(server.url, path_to_keys=tmp_path, keyring=True)(x), small.float(x))
    assert [(service, len(p) >= 40) for (service, _), p in kept.items()] == [("hemi", True)]
    with pytest.raises(HemiArgumentError, match="one of them"):
        small.client(server.url, path_to_keys=tmp_path, keyring=True, passphrase="x")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(HemiUnsupportedError, match="pip install keyring"):
        small.client(server.url, path_to_keys=tmp_path, keyring=True)


def test_hemi_keys(tmp_path):
    keys, first, second = tmp_path / "keys", tmp_path / "first", tmp_path / "second"
    first.write_text("correct horse\n")
    second.write_text("battery staple\n")
    assert json.loads(hemi("keys", "new", "-o", keys, "--passphrase-file", first, "--json"))["encrypted"] is True
    (shown,) = json.loads(hemi("keys", "show", keys, "--json"))["keys"]
    assert shown["state"] == "encrypted" and shown["private"] is True
    assert "the passphrase is not" in hemi("keys", "protect", keys, "--passphrase-file", second, "--new-passphrase-file", first, status=21)
    hemi("keys", "protect", keys, "--passphrase-file", first, "--new-passphrase-command", f"cat {second}")
    hemi("keys", "protect", keys, "--plain", HEMI_PASSPHRASE="battery staple")
    (shown,) = json.loads(hemi("keys", "show", keys, "--json"))["keys"]
    assert shown["state"] == "good"
    hemi("keys", "protect", keys, HEMI_PASSPHRASE="again")
    (shown,) = json.loads(hemi("keys", "show", keys, "--json"))["keys"]
    assert shown["state"] == "encrypted"
    assert "failed" in hemi("keys", "protect", keys, "--passphrase-command", "false", status=4)
    assert "gives no passphrase" in hemi("keys", "protect", keys, "--passphrase-command", "true", status=2)
    (key,) = keys.glob("*.key")
    key.chmod(0o644)
    (shown,) = json.loads(hemi("keys", "show", keys, "--json"))["keys"]
    assert shown["private"] is False and "chmod 600" in shown["state"]


def test_hemi_call_with_an_encrypted_key(small, server, tmp_path):
    import numpy

    x, y, keys = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "keys"
    numpy.save(x, torch.randn(1, 10).numpy())
    call = ["call", server.url, "model", "seq.0", "--input", x, "--output", y, "--keys", keys]
    hemi(*call, "--passphrase-command", "echo secret")
    hemi(*call, HEMI_PASSPHRASE="secret")
    assert "the passphrase is not" in hemi(*call, status=21, HEMI_PASSPHRASE="wrong")

"""kill -9 at any moment of an upload: afterwards the keys are wholly there, and serve, or wholly absent. 20 times; with HEMI_TEST_LONG 1,000."""

import hashlib
import os
import random
import sqlite3
import signal
import threading
import time
import urllib.error
import urllib.request

import serving
import torch
from conftest import close

from hemi_fhe.deployment import FHEModelClient

LONG = bool(os.environ.get("HEMI_TEST_LONG"))
KILLS = 1000 if LONG else 20


def ask(port, method, path, body=None, timeout=20):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.read()
        return error.code
    except (OSError, urllib.error.URLError):
        return None


def make_keys(small, count):
    """[(path, bytes)] of evaluation keys of clients that do not exist any more."""
    keys = []
    for _ in range(count):
        client = FHEModelClient(next((small.folder / "seq.0").glob("po_*_pc")))
        data = client.get_serialized_evaluation_keys()
        keys.append((f"/v2/keys/{hashlib.blake2b(data, digest_size=32).hexdigest()}", data))
    return keys


def test_kill_during_uploads(small, tmp_path, capsys):
    rng, store = random.Random(7), tmp_path / "store.db"
    there = absent = 0
    known = {}  # path: it was seen to be there, after some restart
    arguments = [serving.PROGRAM, small.models, "--json", "--quiet", "--no-auth", "--store", store]
    keys = make_keys(small, 12)
    with serving.Server(arguments + ["--port", "0"]) as server:
        port = server.port
        start = time.monotonic()  # how long an upload takes here
        assert ask(port, "PUT", *keys[0]) == 201
        took = time.monotonic() - start
        assert ask(port, "DELETE", keys[0][0]) == 204
    for _ in range(KILLS):
        with serving.Server(arguments + ["--port", str(port)]) as server:
            for path, was in known.items():
                now = ask(port, "HEAD", path)
                assert now in (200, 404) and not (was and now != 200), (path, was, now)
            path, data = rng.choice([k for k in keys if not known.get(k[0])] or keys)
            if known.get(path):
                assert ask(port, "DELETE", path) == 204
                known[path] = False
            answer = []
            thread = threading.Thread(target=lambda: answer.append(ask(port, "PUT", path, data)))
            thread.start()
            time.sleep(rng.uniform(0, took))
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            thread.join()
        with serving.Server(arguments + ["--port", str(port)]) as server:
            status = ask(port, "HEAD", path)
            assert status in (200, 404)
            assert not (answer == [201] and status != 200), "it was answered that the keys are kept, and they are not"
            assert ask(port, "PUT", path, data) == (200 if status == 200 else 201)
            if status == 404:
                assert ask(port, "DELETE", path) == 204
            known[path] = status == 200
            took *= 0.95 if status == 200 else 1.05  # where both happen as often
            there, absent = there + (status == 200), absent + (status == 404)
    with capsys.disabled():
        print(f" {KILLS} kills: keys there {there} times, absent {absent} times ", end="")
    assert there + absent == KILLS


def test_keys_serve_after_a_kill(small, tmp_path):
    """The client whose server is killed in the middle of its calls goes on; results stay right."""
    store, x = tmp_path / "store.db", torch.randn(2, 10)
    arguments = [serving.PROGRAM, small.models, "--json", "--quiet", "--no-auth", "--store", store]
    model, port = None, "0"
    for _ in range(4):
        with serving.Server(arguments + ["--port", str(port)]) as server:
            port, model = server.port, model or small.client(server.url, prepare=False)
            close(model(x), small.float(x))
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()


def test_deleted_keys_are_uploaded_again(small, tmp_path):
    """Gone between two calls: 404, PUT, once more, by itself."""
    log, x = tmp_path / "log", torch.randn(1, 10)
    with open(log, "wb") as stream:
        with serving.Server([serving.PROGRAM, small.models, "--json", "--no-auth", "--store", tmp_path / "store.db", "--port", "0"], stderr=stream) as server:
            model = small.client(server.url, prepare=False)
            close(model(x), small.float(x))
            for path in {line.split("key=")[1] for line in log.read_text().splitlines() if "method=PUT" in line}:
                assert len(path) == 8  # the log has no more of it: keys are found in the store
            with sqlite3.connect(tmp_path / "store.db.keys") as db:
                ids = [row[0].hex() for row in db.execute("SELECT id FROM eval_keys")]
            assert len(ids) == 1
            assert ask(server.port, "DELETE", f"/v2/keys/{ids[0]}") == 204
            close(model(x), small.float(x))
    assert [line.split("method=")[1].split()[0] for line in log.read_text().splitlines() if "/v2/keys/" in line] == ["HEAD", "PUT", "DELETE", "PUT"]

"""What an operator sees: /metrics, the log, `hemi top`, `hemi audit`; and the budget as a client meets it."""

import json
import math
import re
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import serving
import torch
from conftest import close
from test_tenants import hemi

from hemi_fhe.errors import HemiBudgetError

NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"^({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([0-9.eE+-]+|NaN|[+-]Inf)$")


def parse(text):
    """{name: {labels: value}} of the text format of Prometheus, held to its rules: each metric once, with HELP and TYPE before its samples,
    no sample twice, histograms that add up."""
    samples, types, helps, closed, current = {}, {}, set(), set(), None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            kind, name, rest = line[2:].split(" ", 2)
            if kind == "HELP":
                assert name not in helps and rest
                helps.add(name)
                closed.add(current)
                current = name
            else:
                assert kind == "TYPE" and name == current and name not in types and rest in ("counter", "gauge", "histogram")
                types[name] = rest
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        base = re.sub(r"_(bucket|sum|count)$", "", name) if types.get(current) == "histogram" else name
        assert base == current and base not in closed, line
        assert types[base] != "counter" or name.endswith("_total"), line
        labels = tuple(sorted(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', labels or "")))
        assert labels not in samples.setdefault(name, {}), line
        samples[name][labels] = float(value)
    for name in (n for n, kind in types.items() if kind == "histogram"):
        for rest, count in samples[name + "_count"].items():
            buckets = [(float(dict(labels)["le"]), v) for labels, v in samples[name + "_bucket"].items() if tuple(x for x in labels if x[0] != "le") == rest]
            assert [b for b, _ in buckets] == sorted(b for b, _ in buckets) and buckets[-1] == (math.inf, count)
            assert [v for _, v in buckets] == sorted(v for _, v in buckets) and rest in samples[name + "_sum"]
    return samples


def metrics(url, token=None):
    request = urllib.request.Request(url + "/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return parse(reply.read().decode())


@pytest.fixture(scope="module")
def watched(tmp_path_factory, small):
    """A server with tenants, a log and a budget that a few calls use up: 10 inputs, and at most 9 x 11 rows."""
    folder = tmp_path_factory.mktemp("watched")
    store, log = folder / "store.db", folder / "log"
    tokens = {name: hemi("tenants", "add", name, "--store", store, *(["--operator"] if name == "boss" else [])).strip() for name in ("alice", "bob", "boss")}
    with open(log, "wb") as stream:
        with serving.Server([serving.PROGRAM, small.models, "--port", "0", "--json", "--store", store, "--budget", "9"], stderr=stream) as server:
            server.tokens, server.store, server.log = tokens, store, log
            yield server


def test_metrics_count_what_happened(watched, small):
    before = metrics(watched.url, watched.tokens["boss"])
    model, x = small.client(watched.url, token=watched.tokens["alice"], prepare=False), torch.randn(1, 10)
    for _ in range(3):
        close(model(x), small.float(x))
    after = metrics(watched.url, watched.tokens["boss"])

    def grown(name, **labels):
        def of(page):
            return sum(v for found, v in page.get(name, {}).items() if set(labels.items()) <= set(found))

        return of(after) - of(before)

    infer = "/v2/models/{model}/infer"
    assert grown("hemi_requests_total", route=infer, status="200") == 3
    assert grown("hemi_request_seconds_count", route=infer) == 3
    assert grown("hemi_compute_seconds_count") == 3
    assert grown("hemi_tenant_requests_total", tenant="alice") >= 4 and grown("hemi_tenant_requests_total", tenant="bob") == 0
    rows = grown("hemi_tenant_rows_total", tenant="alice")
    assert rows >= 3 and grown("hemi_module_rows_total", module="seq.0") == rows
    assert grown("hemi_budget_rows", tenant="alice", module="model/seq.0") == rows
    assert grown("hemi_request_body_bytes_total") > 10000
    assert after["hemi_budget_fraction"][(("module", "model/seq.0"), ("tenant", "alice"))] == pytest.approx(rows / 11)
    assert after["hemi_budget_limit"][()] == 9


def test_budget_is_refused(watched, small):
    model, x = small.client(watched.url, token=watched.tokens["bob"], prepare=False), torch.randn(1, 10)
    served = 0
    with pytest.raises(HemiBudgetError, match="budget of model/seq.0 is used up.*request [0-9a-f]{16}"):
        for _ in range(200):
            model(x)
            served += 1
    assert 3 <= served <= 99
    with pytest.raises(HemiBudgetError):
        model(x)
    other = small.client(watched.url, token=watched.tokens["alice"], prepare=False)
    close(other(x), small.float(x))


def test_audit(watched):
    counts = json.loads(hemi("audit", "--store", watched.store, "--budget", 9, "--json"))["counts"]
    assert counts == sorted(counts, key=lambda c: -c["fraction"])
    bob = next(c for c in counts if c["tenant"] == "bob")
    assert bob["module"] == "model/seq.0" and bob["inputs"] == 10 and bob["fraction"] == pytest.approx(bob["rows"] / 11) and bob["rows"] <= 99
    text = hemi("audit", "--store", watched.store, "--budget", 9)
    assert "####" in text and "alice" in text
    assert "alice" not in hemi("audit", "--store", watched.store, "--tenant", "bob")
    assert "--tenant" in hemi("audit", "--store", watched.store, "--reset", "model/seq.0", status=2)
    assert "nothing is counted" in hemi("audit", "--store", watched.store, "--reset", "model/none", "--tenant", "bob", status=10)


def test_top(watched, tmp_path):
    token = tmp_path / "token"
    token.write_text(watched.tokens["boss"])
    text = hemi("top", watched.url, "--once", "--interval", 0.2, "--token-file", token)
    assert "alice" in text and "model/seq.0" in text and "workers" in text and "\033" not in text
    figures = json.loads(hemi("top", watched.url, "--once", "--interval", 0.2, "--token-file", token, "--json"))
    assert figures["requests"] > 0 and figures["rows"] > 0
    assert "HEMI_ERR_FORBIDDEN" in hemi("top", watched.url, "--once", HEMI_TOKEN=watched.tokens["bob"], status=22)


def test_top_goes_on_until_interrupted(watched, tmp_path):
    from test_tenants import HEMI
    import os
    import signal

    process = subprocess.Popen([str(HEMI), "top", watched.url, "--interval", "0.1"], stdout=subprocess.PIPE, env={**os.environ, "HEMI_TOKEN": watched.tokens["boss"]})
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and out.count(b"workers") >= 3


def test_request_ids(watched):
    def ask(given=None, path="/v2/models"):
        headers = {"Authorization": f"Bearer {watched.tokens['alice']}", **({"X-Request-Id": given} if given else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(watched.url + path, headers=headers), timeout=20) as reply:
                return reply.headers["Hemi-Request-Id"], None
        except urllib.error.HTTPError as error:
            return error.headers["Hemi-Request-Id"], json.loads(error.read())["error"]["request_id"]

    assert ask("from-a-proxy.1")[0] == "from-a-proxy.1"
    for bad in ("a b", "x" * 65, "a=b", 'a"b'):
        assert re.fullmatch("[0-9a-f]{16}", ask(bad)[0])
    drawn = {ask()[0] for _ in range(20)}
    assert len(drawn) == 20
    header, document = ask("wrong-1", "/v2/models/none")
    assert header == document == "wrong-1"
    time.sleep(0.2)
    log = watched.log.read_text()
    line = next(line for line in log.splitlines() if "id=wrong-1 " in line)
    assert "tenant=alice" in line and "status=404" in line and "route=/v2/models/{model}" in line


def test_log_holds_no_secrets(watched):
    log = watched.log.read_text()
    assert "tenant=alice" in log
    for token in watched.tokens.values():
        assert token not in log and token[5:] not in log
    for line in log.splitlines():
        if line.startswith("time="):
            assert re.fullmatch(r"(?:[a-z_]+=[^ ]+ ?)+", line), line
            assert re.search(r"key=([0-9a-f]{8}|-)$", line), line

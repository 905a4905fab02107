#!/usr/bin/env python3
"""Writes the seeds of fuzz/corpus anew: small files of every format, and edits (fuzz/fuzz.h) of every field of a header. What a fuzzer finds beside them is
kept under names of its own, and is not touched.  python3 fuzz/make_corpus.py"""

import json
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CORPUS = ROOT / "corpus"


def seed(harness, name, data):
    folder = CORPUS / harness
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def edit(place, what, value):
    return struct.pack("<I", place)[:3] + bytes([what]) + struct.pack("<H", value)


def edits_of_header(harness, length, first=1):
    """Each byte of a header changed, and files that end early."""
    seed(harness, "valid", bytes([first]))
    for place in range(length):
        seed(harness, f"edit-{first}-{place}", bytes([first]) + edit(place, 0, 1 + place * 37 % 255))
    for place in (0, 1, 4, 8, 16, length - 1, length, length + 1):
        seed(harness, f"end-{first}-{place}", bytes([first]) + edit(place, 2, 0))
    seed(harness, f"longer-{first}", bytes([first]) + edit(length, 3, 7))


# ---- ONNX: a writer of protobuf


def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while True:
        out += bytes([v & 127 | (128 if v > 127 else 0)])
        v >>= 7
        if not v:
            return out


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, str):
        value = value.encode()
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, dims, numbers):
    return b"".join(field(1, d) for d in dims) + field(2, 1) + field(8, name) + field(9, struct.pack(f"<{len(numbers)}f", *numbers))


def node(op, inputs, outputs, attributes=b""):
    return b"".join(field(1, i) for i in inputs) + b"".join(field(2, o) for o in outputs) + field(3, op.lower()) + field(4, op) + attributes


def value_info(name, dims):
    shape = b"".join(field(1, field(1, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def model(nodes, tensors, dims_in, dims_out):
    graph = b"".join(field(1, n) for n in nodes) + field(2, "g") + b"".join(field(5, t) for t in tensors)
    graph += field(11, value_info("x", dims_in)) + field(12, value_info("y", dims_out))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def onnx():
    w = tensor("w", [8, 4], [i / 32 for i in range(32)])
    b = tensor("b", [4], [1, 2, 3, 4])
    transposed = field(5, field(1, "transB") + field(20, 2) + field(3, 1))
    cases = {
        "matmul": model([node("MatMul", ["x", "w"], ["y"])], [w], [4, 8], [4, 4]),
        "gemm": model([node("Gemm", ["x", "w", "b"], ["y"])], [w, b], [4, 8], [4, 4]),
        "gemm-transposed": model([node("Gemm", ["x", "w", "b"], ["y"], transposed)], [tensor("w", [4, 8], [0.5] * 32), b], [4, 8], [4, 4]),
        "relu": model([node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])], [w], [4, 8], [4, 4]),
        "add": model([node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])], [w, b], [4, 8], [4, 4]),
        "product": model([node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "h"], ["y"])], [w], [4, 8], [4, 4]),
        "conv": model([node("Conv", ["x", "k"], ["y"], field(5, field(1, "kernel_shape") + field(20, 7) + field(8, 3) + field(8, 3)))],
                      [tensor("k", [2, 3, 3, 3], [0.1] * 54)], [2, 3, 6, 6], [2, 2, 4, 4]),
        "flatten": model([node("Flatten", ["x"], ["y"])], [], [2, 3, 6, 6], [2, 108]),
        "transpose": model([node("Transpose", ["x"], ["y"])], [], [4, 8], [8, 4]),
        "cycle": model([node("Add", ["y", "x"], ["y"])], [], [4, 8], [4, 8]),
        "empty": b"",
    }
    for name, data in cases.items():
        first = 1 if name in ("conv", "flatten") else 0
        seed("onnx", name, bytes([first]) + data)


# ---- HTTP


def http():
    key = "0" * 64
    heads = {
        "live": "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
        "models": "GET /v2/models HTTP/1.1\r\nHost: x\r\nX-Request-Id: a-1\r\n\r\n",
        "model": "HEAD /v2/models/m HTTP/1.1\r\nHost: x\r\n\r\n",
        "client": "GET /v2/models/m/modules/seq.0/client?shape=po_1_6_pc HTTP/1.1\r\nHost: x\r\n\r\n",
        "metrics": "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hemi_0\r\n\r\n",
        "put": f"PUT /v2/keys/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nHEMI",
        "part": f"PUT /v2/keys/{key} HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-3/100\r\nContent-Length: 4\r\n\r\nHEMI",
        "delete": f"DELETE /v2/keys/{key} HTTP/1.1\r\nHost: x\r\n\r\n",
        "infer": f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nHemi-Key: {key}\r\nHemi-Progress: {key[:32]}\r\nContent-Length: 8\r\n\r\nHEMI\1\0\1\0",
        "prepare": f"POST /v2/models/m/prepare HTTP/1.1\r\nHost: x\r\nHemi-Key: {key}\r\nContent-Length: 8\r\n\r\nHEMI\1\0\5\0",
        "progress": f"GET /v2/progress/{key[:32]} HTTP/1.1\r\nHost: x\r\n\r\n",
        "chunked": "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nHEMI\r\n0\r\n\r\n",
        "two-lengths": "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nHEMI",
        "expect": "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        "pipeline": "GET /v2/models HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "old": "GET /v2/models HTTP/1.0\r\n\r\n",
        "dots": "GET /v2/models/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "percent": "GET /v2/models/%2e%2e%2f%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "half": "GET /v2/mod",
        "binary": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    }
    for name, text in heads.items():
        seed("http", name, text.encode("latin-1"))


def safetensors():
    def file(header, data=bytes(64)):
        text = json.dumps(header).encode() if not isinstance(header, bytes) else header
        return b"\0" + struct.pack("<Q", len(text)) + text + data

    a = {"dtype": "I16", "shape": [4, 4], "data_offsets": [0, 32]}
    cases = {"valid": {"a": a, "b": {"dtype": "F64", "shape": [4], "data_offsets": [32, 64]}}, "overlap": {"a": a, "b": a}, "hole": {"a": {**a, "data_offsets": [8, 40]}},
             "negative": {"a": {**a, "data_offsets": [-1, 31]}}, "huge": {"a": {**a, "shape": [2**40, 2**40]}}, "dtype": {"a": {**a, "dtype": "X9"}}, "empty": {}}
    for name, header in cases.items():
        seed("safetensors", name, file(header))
    seed("safetensors", "no-json", file(b"{{{{"))
    seed("safetensors", "length", b"\0" + struct.pack("<Q", 2**63) + b"{}")


def main():
    edits_of_header("keys", 64)
    edits_of_header("request", 96)
    edits_of_header("reply", 72)
    edits_of_header("secret", 32)
    edits_of_header("secret", 64, 3)
    edits_of_header("module", 24)
    edits_of_header("module", 24, 3)
    edits_of_header("safetensors", 16)
    onnx()
    http()
    safetensors()
    for name in ("keys", "request", "reply"):
        seed(name, "ckks-header", b"\0HEMI" + struct.pack("<HHII", 1, {"keys": 7, "request": 8, "reply": 9}[name], 2, 1) + bytes(100))
        seed(name, "batch-header", b"\0HEMI" + struct.pack("<HHII", 1, 5, 1, 1) + bytes(100))
    seed("secret", "tenants", b"\0# comment\nalice tenant " + b"0" * 64 + b" 1 0\nbob operator " + b"a" * 64 + b" 1 2\n")
    seed("secret", "tenants-short", b"\0alice tenant\n")
    print({p.name: len(list(p.iterdir())) for p in sorted(CORPUS.iterdir())})


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The figures of docs/performance.md, measured with `hemi bench ... --json` under each kernel table that runs here.

    bench/figures.py [--program build/bin/hemi] [--only linear,rows] [--runs 3] [--json FILE] [--document docs/performance.md]

Prints Markdown. --json keeps the figures in a file: sections that are not measured now stay as they are there. --document also puts the
tables in their places in a document (between <!-- begin NAME --> and <!-- end NAME -->). --print measures nothing. Of --runs runs of a
command the fastest counts, by the server's median processor time (of circuits, which take two threads, by its time): what a neighbour on the machine adds is not ours. Exits as `hemi bench` does when a
result is wrong."""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path

LINEAR = [(10, 10, 0), (128, 128, 0), (384, 384, 0), (768, 768, 0), (768, 768, 2048), (768, 768, 4096), (768, 3072, 0), (3072, 768, 0), (2048, 2048, 0), (4096, 4096, 0)]
ROWS = [1, 8, 32, 128, 1024, 2048]
CONVOLUTIONS = [  # in, out, kernel, stride, padding, groups, size
    (64, 64, 3, 1, 1, 1, "8x8"),
    (3, 64, 7, 2, 3, 1, "64x64"),
    (64, 64, 3, 1, 1, 64, "8x8"),
    (64, 128, 3, 2, 1, 1, "16x16"),
    (64, 128, 1, 2, 0, 1, "16x16"),
    (256, 256, 3, 1, 1, 1, "4x4"),
    (64, 64, 3, 1, 1, 1, "16x16"),
    (512, 512, 3, 1, 1, 1, "2x2"),
]
PREPARED = [(128, 128, 256), (384, 384, 256), (768, 768, 256), (768, 3072, 256), (2048, 2048, 64), (4096, 4096, 64)]
PRECISE = [(768, 768, 12), (768, 768, 8), (4096, 4096, 12)]
MEMORY = [(768, 768), (768, 3072), (4096, 4096)]
MODELS = Path(__file__).resolve().parent / "models"


def trained(name):
    return [MODELS / f"{name}.onnx", "--calibration", MODELS / "digits.npy"]


CIRCUITS = [["mlp-10-32-10"], trained("mlp-64-128-64-10"), trained("cnn-1"), trained("cnn-2"), ["gpt2-block"]]
CIRCUITS += [["mlp-64-128-64-10"], ["cnn-1"], ["cnn-2"]]  # of random weights
CIRCUIT_ROWS = [(["mlp-10-32-10"], [1, 4, 16, 64, 256]), (trained("mlp-64-128-64-10"), [1, 4, 16, 64]), (trained("cnn-2"), [1, 4, 16])]
THREADS = 2  # of circuits
LEVELLED = [("C8192", 5), ("C16384", 7), ("C16384", 9), ("C32768", 9)]


class Bench:
    def __init__(self, program, runs):
        self.program, self.runs = program, runs
        self.kernels = [k for k in ("avx2", "avx512") if self.runs_here(k)] or ["portable"]

    def runs_here(self, kernel):
        command = [self.program, "bench", "linear", "-d", "1", "-m", "1", "-n", "15", "--keys-count", "1", "--kernel", kernel, "--json"]
        done = subprocess.run(command, capture_output=True)
        return done.returncode == 0 and json.loads(done.stdout)["kernel"] == kernel

    def knows(self, what):
        return f"  {what} " in subprocess.run([self.program, "bench", "--help"], stdout=subprocess.PIPE, text=True).stdout

    def once(self, *arguments):
        done = subprocess.run([self.program, "bench", *map(str, arguments), "--json"], stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.returncode)
        return json.loads(done.stdout)

    def best(self, key, *arguments):
        runs = [self.once(*arguments) for _ in range(self.runs)]
        plain = [r["plain_ms"] for r in runs if r.get("plain_ms")]
        found = min(runs, key=key)
        if plain:
            found["plain_ms"] = min(plain)
        return found

    def each(self, key, *arguments):
        return {k: self.best(key, *arguments, "--kernel", k) for k in self.kernels}


def server(r):
    return r["server_cpu_ms"] if "server_cpu_ms" in r else r["forms"][r["best"]]["server_cpu_ms"]


# ---- measuring: a list of {kernel: figures}


def measure_linear(b):
    return [b.each(server, "linear", "-d", d, "-m", m, "--layout", s) for d, m, s in LINEAR]


def measure_rows(b):
    return [b.each(server, "rows", "-d", 768, "-m", 768, "-r", r, "--repeat", 5 if r > 100 else 20) for r in ROWS]


def measure_conv2d(b):
    return [
        b.each(server, "conv2d", "-i", i, "-o", o, "--kernel-size", k, "--stride", t, "--padding", p, "--groups", g, "--size", s)
        for i, o, k, t, p, g, s in CONVOLUTIONS
    ]


def measure_prepared(b):
    return [b.each(server, "prepared", "-d", d, "-m", m, "--slots", s) for d, m, s in PREPARED]


def measure_precise(b):
    return [
        {k: [b.best(server, "linear", "-d", d, "-m", m, "--weight-bits", w, "--set", s, "--kernel", k) for s in ("L4096", "L4096P")] for k in b.kernels}
        for d, m, w in PRECISE
    ]


def measure_memory(b):
    return [
        {k: [b.best(server, "linear", "-d", d, "-m", m, "--memory", way, "--kernel", k) for way in ("fast", "small")] for k in b.kernels} for d, m in MEMORY
    ]


def token(r):
    return r["token"]["server_cpu_ms"]


def measure_model(b):
    return [
        b.each(token, "model", "gpt2"),
        b.each(token, "model", "gpt2", "--memory", "small", "--no-prepare"),
        b.each(token, "model", "llama-3.2-1b", "--layers", 2),
    ]


def measure_load(b):
    return [b.each(lambda r: -max(x["speedup"] for x in r["http"]), "serve", "--clients", 8, "--rounds", 3)]


def wall(r):
    return r["server_ms"]


def measure_circuit(b):
    return [b.each(wall, "circuit", *model, "--threads", THREADS) for model in CIRCUITS]


def measure_circuit_rows(b):
    return [b.each(wall, "circuit", *model, "--threads", THREADS, "--rows", r) for model, rows in CIRCUIT_ROWS for r in rows]


def product_cpu(r):
    return r["operations"]["product"]["cpu_ms"]


def measure_ckks(b):
    return [b.each(product_cpu, "ckks", "--set", s, "--limbs", l) for s, l in LEVELLED]


# ---- tables


def power(x):
    return f"2^{math.log2(x):.2f}" if x else "0"


def ms(x):
    return f"{x:.4f}" if x < 0.1 else f"{x:.3f}" if x < 10 else f"{x:.1f}"


def kb(x):
    return f"{x / 1e3:.1f} KB" if x < 1e6 else f"{x / 1e6:.1f} MB"


def table(headings, rows):
    return "\n".join(["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)] + ["| " + " | ".join(map(str, r)) + " |" for r in rows])


def names(entry, what):
    return [f"{what}, {k}" for k in entry]


def last(entry):
    return list(entry.values())[-1]


def times(entry):
    return [f"{ms(r['server_cpu_ms'])} ({ms(r['server_cpu_ms_min'])})" for r in entry.values()]


def error(r):
    return f"{power(r['error_std_over_max'])}, {power(r['predicted_error'])}"


def table_linear(found):
    rows = []
    for entry in found:
        r = last(entry)
        rows.append(
            [f"{r['inputs']} x {r['outputs']}", r["layout"], *times(entry), ms(r["plain_ms"]), f"{ms(r['encrypt_ms'])} / {ms(r['decrypt_ms'])}"]
            + [r["upload_bytes"], r["download_bytes"], r["evaluation_key_bytes"], f"{r['server_weight_bytes'] / 1e6:.1f}", f"{r['load_ms']:.0f}", error(r)]
        )
    headings = ["shape", "layout", *names(found[0], "server ms"), "float32 ms", "encrypt / decrypt ms", "up B", "down B", "keys B", "memory MB", "load ms"]
    return table(headings + ["error, predicted"], rows)


def row_total(r):
    return r["forms"][r["best"]]["cpu_row_ms"]


def row_server(r):
    return r["forms"][r["best"]]["server_row_cpu_ms"]


def table_rows(found):
    rows = []
    for entry in found:
        r = last(entry)
        f = r["forms"][r["best"]]
        rows.append(
            [r["rows"], r["best"], *(ms(row_server(x)) for x in entry.values()), *(ms(row_total(x)) for x in entry.values()), ms(r["plain_ms"] / r["rows"])]
            + [kb(f["upload_bytes"] / r["rows"]), kb(f["download_bytes"] / r["rows"])]
        )
    headings = ["rows", "form", *names(found[0], "server ms/row"), *names(found[0], "with client ms/row"), "float32 ms/row", "up/row", "down/row"]
    return table(headings, rows)


def table_conv2d(found):
    rows = []
    for entry in found:
        r = last(entry)
        (k, _), (h, w), (oh, ow) = r["kernel_size"], r["size"], r["output_size"]
        what = f"{r['in_channels']} -> {r['out_channels']}, {k} x {k}" + (f", stride {r['stride']}" if r["stride"] > 1 else "")
        what += f", {r['groups']} groups" if r["groups"] > 1 else ""
        rows.append(
            [what, f"{h} x {w} -> {oh} x {ow}", r["operation"], f"{r['units']} x {r['products']}", *times(entry), ms(r["plain_ms"])]
            + [kb(r["upload_bytes"]), kb(r["download_bytes"]), f"{r['server_weight_bytes'] / 1e6:.1f}", error(r)]
        )
    headings = ["convolution", "sample", "form", "units x products", *names(found[0], "server ms"), "float32 ms", "up", "down", "memory MB", "error, predicted"]
    return table(headings, rows)


def table_prepared(found):
    rows = []
    for entry in found:
        for kernel, r in entry.items():
            rows.append(
                [f"{r['inputs']} x {r['outputs']}", kernel, f"{ms(r['server_cpu_ms'])} ({ms(r['server_cpu_ms_min'])})", ms(r["plain_ms"]), f"{r['server_cpu_ms'] / r['plain_ms']:.2f}"]
                + [f"{ms(r['encrypt_ms'])} / {ms(r['decrypt_ms'])}", r["upload_bytes"], r["download_bytes"], f"{(r['cpu_ms'] - r['online_cpu_ms']) * r['slots']:.0f}", r["slots"]]
                + [ms(r["cpu_ms"]), kb(r["prepare_download_bytes"]), kb(r["server_state_bytes"])]
            )
    headings = ["shape", "kernels", "server ms", "float32 ms", "ratio", "encrypt / decrypt ms", "up B", "down B", "preparing, both sides, ms a batch", "rows of it"]
    return table(headings + ["all processor time, ms a row", "down, a batch", "kept by the server"], rows)


def table_precise(found):
    rows = []
    for entry, (d, m, bits) in zip(found, PRECISE):
        for kernel, (plain, precise) in entry.items():
            rows.append(
                [f"{d} x {m}, {bits} bits", kernel, ms(server(plain)), ms(server(precise)), f"{server(precise) / server(plain):.2f}"]
                + [power(plain["error_std_over_max"]), power(precise["error_std_over_max"]), kb(plain["evaluation_key_bytes"]), kb(precise["evaluation_key_bytes"])]
                + [f"{plain['server_weight_bytes'] / 1e6:.1f}, {precise['server_weight_bytes'] / 1e6:.1f}"]
            )
    headings = ["shape, weights", "kernels", "L4096 ms", "L4096P ms", "ratio", "error, L4096", "error, L4096P", "keys, L4096", "keys, L4096P", "memory MB"]
    return table(headings, rows)


def table_memory(found):
    rows = []
    for entry in found:
        for kernel, (fast, small) in entry.items():
            rows.append(
                [f"{fast['inputs']} x {fast['outputs']}", kernel, ms(server(fast)), ms(server(small)), f"{server(small) / server(fast):.2f}"]
                + [f"{fast['server_weight_bytes'] / 1e6:.1f}", f"{small['server_weight_bytes'] / 1e6:.1f}", f"{fast['load_ms']:.0f}", f"{small['load_ms']:.0f}"]
            )
    return table(["shape", "kernels", "fast ms", "small ms", "ratio", "fast MB", "small MB", "load, fast ms", "load, small ms"], rows)


def table_model(found):
    rows = []
    for entry in found:
        for kernel, r in entry.items():
            p, t = r["prepared"], r["token"]
            held = "" if r["layers_held"] == r["layers"] else f" ({r['layers_held']} of {r['layers']} layers held)"
            rows.append(
                [r["model"] + held, r["memory"], kernel, f"{t['server_cpu_ms']:.1f} ({t['server_cpu_ms_min']:.1f})"]
                + ([f"{p['server_cpu_ms']:.1f} ({p['server_cpu_ms_min']:.1f})", f"{p['prepare_cpu_ms'] / 1e3:.1f}"] if p else ["-"] * 2)
                + [f"{r['plain_ms']:.1f}", f"{t['client_ms']:.1f}" + (f", {p['client_ms']:.1f}" if p else "")]
                + [f"{kb(t['upload_bytes'])}, {kb(t['download_bytes'])}", f"{kb(p['upload_bytes'])}, {kb(p['download_bytes'])}" if p else "-"]
                + [f"{r['server_weight_bytes'] / 1e6:.0f}", f"{r['server_rss_bytes_held'] / 1e6:.0f}", f"{r['load_ms'] / 1e3:.1f}", kb(r["evaluation_key_bytes"])]
            )
    headings = ["model", "memory", "kernels", "server ms", "prepared ms", "preparing, s a batch", "float32 ms", "client ms, prepared"]
    return table(headings + ["up, down", "prepared up, down", "counted MB", "resident MB of those held", "load s", "keys"], rows)


def table_load(found):
    rows = []
    for kernel, r in found[0].items():
        for h, e in zip(r["http"], r["evaluate"]):
            calls = [x["calls"] for x in h["each"]]
            rows.append(
                [kernel, h["clients"], f"{h['calls_per_second']:.0f}", f"{h['speedup']:.2f}", f"{h['p50_ms']:.2f}", f"{h['p99_ms']:.2f}", f"{min(calls) / max(calls):.2f}"]
                + [f"{h['server_cpu_ms']:.2f}", f"{h['client_cpu_ms']:.2f}", f"{e['calls_per_second']:.0f}", f"{e['speedup']:.2f}"]
            )
    headings = ["kernels", "clients", "calls/s", "times one", "p50 ms", "p99 ms", "fewest / most calls of a client", "server CPU ms", "client CPU ms"]
    return table(headings + ["calls/s without HTTP", "times one"], rows)


def wall_times(entry):
    return [f"{ms(r['server_ms'])} ({ms(r['server_ms_min'])}; {ms(r['server_cpu_ms'])})" for r in entry.values()]


def table_circuit(found):
    rows = []
    for entry in found:
        r = last(entry)
        rows.append(
            [r["model"], "trained" if r["from_file"] else "random", f"{r['set']}, {r['levels']} of {r['set_levels']}", ", ".join(map(str, r["degrees"])), r["rows_per_ciphertext"], *wall_times(entry)]
            + [ms(r["ms_per_row"]), f"{ms(r['encrypt_ms'])} / {ms(r['decrypt_ms'])}", kb(r["upload_bytes"]), kb(r["download_bytes"]), kb(r["evaluation_key_bytes"])]
            + [f"{r['server_bytes'] / 1e6:.0f}, {r['server_key_bytes'] / 1e6:.0f}, {r['server_peak_bytes'] / 1e6:.0f}"]
            + [f"{r['load_ms'] / 1e3:.1f}, {r['keygen_ms'] / 1e3:.1f}, {r['key_load_ms'] / 1e3:.1f}", power(r["error_std_over_max"])]
            + [f"{100 * r['approximation_error']:.1f} %, {100 * r['approximation_error_measured']:.1f} %"]
        )
    headings = ["model", "weights", "set, levels", "degrees", "rows of a ciphertext", *names(found[0], "server ms"), "ms a row", "encrypt / decrypt ms", "up", "down", "keys"]
    return table(headings + ["memory MB: module, keys, peak", "s: load, make keys, load keys", "error", "polynomials: calibration, new data"], rows)


def table_circuit_rows(found):
    rows = []
    for entry in found:
        r = last(entry)
        rows.append([r["model"], r["rows_per_ciphertext"], r["set"], *wall_times(entry), *(ms(x["ms_per_row"]) for x in entry.values()), kb(r["upload_bytes"] / r["rows_per_ciphertext"])])
    return table(["model", "rows", "set", *names(found[0], "server ms"), *names(found[0], "ms a row"), "up/row"], rows)


def table_ckks(found):
    rows = []
    for entry in found:
        for kernel, r in entry.items():
            o = r["operations"]
            times = [o[x]["cpu_ms"] for x in ("rotation", "hoisted", "product", "rescale", "plaintext_product", "encode", "encrypt", "decrypt")]
            times[1] /= 8
            rows.append(
                [f"{r['set']}, {r['limbs']}", kernel, *map(ms, times), kb(r["key_bytes"]), kb(r["server_key_bytes"]), kb(r["ciphertext_bytes"])]
                + [f"{power(o['product']['error'])}, {power(o['product']['predicted_error'])}"]
            )
    headings = ["set, limbs", "kernels", "rotation ms", "one of 8, hoisted", "product, relinearised, rescaled", "rescale", "plaintext product"]
    return table(headings + ["encode", "encrypt", "decrypt", "a key", "in memory", "a ciphertext", "error of a product, predicted"], rows)


# ---- what was asked for


def conv(found, index, kernel):
    return ms(server(found["conv2d"][index][kernel]))


def bars(found):
    """(what, asked with AVX2, with AVX-512, reached by a kernel table): left out where it was not measured."""
    rows_of = {r["avx2" if "avx2" in r else list(r)[0]]["rows"]: r for r in found.get("rows", [])}

    def of(section, shape, k):
        return next(e[k] for e in found[section] if (e[k]["inputs"], e[k]["outputs"]) == shape)

    def prepared(shape, k):
        r = of("prepared", shape, k)
        return f"{server(r) / r['plain_ms']:.2f} ({ms(server(r))} / {ms(r['plain_ms'])})"

    def small(k):
        fast, less = found["model"][0][k], found["model"][1][k]
        return f"{less['server_weight_bytes'] / 1e6:.0f} MB, {token(less) / token(fast):.1f} x"

    def precise(k):
        plain, p = found["precise"][0][k]
        return f"{power(p['error_std_over_max'])}, {server(p) / server(plain):.2f} x"

    def speedup(k):
        r = found["load"][0][k]
        return f"{r['http'][1]['speedup']:.2f} over HTTP, {r['evaluate'][1]['speedup']:.2f} without"

    def circuit(model, key, k):
        return max((e[k] for e in found["circuit"] if e[k]["model"] == model), key=lambda r: r["from_file"])[key]

    def circuit_bar(model, what, avx2, avx512):
        return ("circuit", f"{what}, {THREADS} threads, ms", avx2, avx512, lambda k: ms(circuit(model, "server_ms", k)))

    def falls(k):
        return ", ".join(f"{r['rows_per_ciphertext']}: {ms(r['ms_per_row'])}" for r in (e[k] for e in found["circuit_rows"]) if r["model"] == "mlp-10-32-10")

    return [
        ("prepared", "768 x 768 after preparation, over float32", "3", "3", lambda k: prepared((768, 768), k)),
        ("prepared", "4096 x 4096 after preparation, over float32", "0.8", "0.8", lambda k: prepared((4096, 4096), k)),
        ("rows", "768 x 768, 8 rows, ms a row", "1.7", "0.9", lambda k: ms(row_server(rows_of[8][k]))),
        ("rows", "768 x 768, 1024 rows, ms a row", "0.2", "0.1", lambda k: f"{ms(row_server(rows_of[1024][k]))}; with the client {ms(row_total(rows_of[1024][k]))}"),
        ("conv2d", "convolution 64 -> 64, 3 x 3 on 8 x 8, ms", "3", "1.7", lambda k: conv(found, 0, k)),
        ("conv2d", "convolution 3 -> 64, 7 x 7, stride 2, on 64 x 64, ms", "12", "7", lambda k: conv(found, 1, k)),
        ("linear", "download at 768 x 768, KB", "9.5", "9.5", lambda k: f"{of('linear', (768, 768), k)['download_bytes'] / 1e3:.2f}"),
        ("prepared", "prepared call at 768 x 768, up / down KB", "3.3 / 3", "3.3 / 3", lambda k: "{:.2f} / {:.2f}".format(*(of("prepared", (768, 768), k)[x] / 1e3 for x in ("upload_bytes", "download_bytes")))),
        ("model", "GPT-2 small, one token, ms of processor time", "260", "150", lambda k: f"{found['model'][0][k]['token']['server_cpu_ms']:.0f}"),
        ("model", "the same after preparation", "20", "15", lambda k: f"{found['model'][0][k]['prepared']['server_cpu_ms']:.1f}"),
        ("model", "GPT-2 small, server memory, fast, GB", "1.2", "1.2", lambda k: f"{found['model'][0][k]['server_weight_bytes'] / 1e9:.2f}"),
        ("model", "GPT-2 small, server memory, small; time", "320 MB, 4 x", "320 MB, 4 x", small),
        ("precise", "precise set, 768 x 768, 12-bit weights: error; time", "2^-18, 3 x", "2^-18, 3 x", precise),
        ("ckks", "C16384, 9 limbs: a rotation, ms", "6", "3", lambda k: ms(found["ckks"][1][k]["operations"]["rotation"]["cpu_ms"])),
        ("ckks", "C16384, 9 limbs: a product, relinearised and rescaled, ms", "9", "4.5", lambda k: ms(product_cpu(found["ckks"][1][k]))),
        ("load", "two clients at once on two processors, times one", "1.8", "1.8", speedup),
        circuit_bar("mlp-10-32-10", "10-32-10 network with ReLU", "120", "60"),
        ("circuit", "its evaluation keys, MB", "64", "64", lambda k: f"{circuit('mlp-10-32-10', 'evaluation_key_bytes', k) / 1e6:.1f}"),
        circuit_bar("mlp-64-128-64-10", "64-128-64-10 network with two ReLU, trained on digits", "900", "500"),
        circuit_bar("cnn-1", "CNN of one convolution, trained on digits", "500", "250"),
        circuit_bar("cnn-2", "CNN of two convolutions, trained on digits", "1800", "900"),
        circuit_bar("gpt2-block", "768-3072-768 with GELU, a block of GPT-2", "3000", "1500"),
        ("circuit", "its server memory, peak, GB", "3", "3", lambda k: f"{circuit('gpt2-block', 'server_peak_bytes', k) / 1e9:.2f}"),
        ("circuit_rows", "10-32-10 network, ms a row in ciphertexts of so many rows", "falls until slots are full", "the same", falls),
    ]


def table_bars(found):
    kernels = [k for k in ("avx2", "avx512", "portable") if any(k in e for s in found.values() for e in s)]
    rows = []
    for section, what, avx2, avx512, reached in bars(found):
        if section not in found:
            continue
        row = [what]
        for k in kernels:
            row += [{"avx2": avx2, "avx512": avx512}.get(k, "-"), reached(k)]
        rows.append(row)
    return table(["what"] + [h for k in kernels for h in (f"asked, {k}", f"reached, {k}")], rows)


SECTIONS = {
    "linear": (measure_linear, table_linear),
    "rows": (measure_rows, table_rows),
    "conv2d": (measure_conv2d, table_conv2d),
    "prepared": (measure_prepared, table_prepared),
    "precise": (measure_precise, table_precise),
    "memory": (measure_memory, table_memory),
    "model": (measure_model, table_model),
    "load": (measure_load, table_load),
    "circuit": (measure_circuit, table_circuit),
    "circuit_rows": (measure_circuit_rows, table_circuit_rows),
    "ckks": (measure_ckks, table_ckks),
}


def put(document, tables):
    text = document.read_text()
    for name, content in tables.items():
        text = re.sub(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", lambda m: m[1] + content + "\n" + m[2], text, flags=re.S)
    document.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/hemi")
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--document", type=Path)
    parser.add_argument("--print", action="store_true")
    given = parser.parse_args()
    found = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    if not given.print:
        bench = Bench(given.program, given.runs)
        for name in given.only.split(","):
            if name == "ckks" and not bench.knows(name):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            found[name] = SECTIONS[name][0](bench)
            if given.json:
                given.json.write_text(json.dumps(found, indent=1) + "\n")
    tables = {name: make(found[name]) for name, (_, make) in SECTIONS.items() if name in found}
    tables["bars"] = table_bars(found)
    for name in ["bars", *SECTIONS]:
        if name in tables:
            print(f"\n## {name}\n\n{tables[name]}")
    if given.document:
        put(given.document, tables)


if __name__ == "__main__":
    main()

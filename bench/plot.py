#!/usr/bin/env python3
"""Draws docs/performance.svg from the figures that bench/figures.py keeps: cost against size and against rows, beside float32 and SEAL, and of circuits.

    bench/plot.py docs/performance.json bench/seal.json docs/performance.svg

Needs matplotlib (Debian: python3-matplotlib); nothing else of the project does."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

STYLE = {"avx2": ("#3b6fb6", "AVX2"), "avx512": ("#c0392b", "AVX-512"), "portable": ("#777777", "portable")}


def squares(found, section, kernel, key):
    best = {}
    for entry in found[section]:
        r = entry[kernel]
        if r["inputs"] == r["outputs"]:
            best.setdefault(r["inputs"], r[key])  # the compiler's own layout comes first
    return sorted(best), [best[d] for d in sorted(best)]


def against_size(ax, found, seal):
    kernels = list(found["linear"][0])
    for kernel in kernels:
        colour, name = STYLE[kernel]
        ax.plot(*squares(found, "linear", kernel, "server_cpu_ms"), "o-", color=colour, label=f"one call, {name}")
        ax.plot(*squares(found, "prepared", kernel, "server_cpu_ms"), "s--", color=colour, label=f"after preparation, {name}")
    ax.plot(*squares(found, "linear", kernels[-1], "plain_ms"), "^:", color="black", label="float32, in the clear")
    products = seal["coefficient_packing"]
    ax.plot([p["size"] for p in products], [p["ms"] for p in products], "D-.", color="#2e8b57", label="coefficient packing on SEAL")
    for name, key in (("SEAL: one rotation", "rotation_us"), ("SEAL: one NTT", "forward_ntt_us")):
        y = seal[key] / 1e3
        ax.axhline(y, color="#2e8b57", linewidth=0.8, alpha=0.6)
        ax.text(10, y * 0.93, name, color="#2e8b57", fontsize=8, va="top")
    ax.set_xlabel("inputs = outputs of the layer")
    ax.set_ylabel("server, ms a call, one thread")
    ax.set_title("one row", fontsize=10)


def against_rows(ax, found):
    kernels = list(found["rows"][0])
    rows = [e[kernels[0]]["rows"] for e in found["rows"]]
    for kernel in kernels:
        colour, name = STYLE[kernel]
        for form, line in (("ciphertexts", "o-"), ("batch", "s--")):
            points = [(e[kernel]["rows"], e[kernel]["forms"][form]["server_row_cpu_ms"]) for e in found["rows"] if form in e[kernel]["forms"]]
            label = "rows in ciphertexts" if form == "ciphertexts" else "one integer product"
            ax.plot(*zip(*points), line, color=colour, label=f"{label}, {name}")
    ax.plot(rows, [e[kernels[-1]]["plain_ms"] / e[kernels[-1]]["rows"] for e in found["rows"]], "^:", color="black", label="float32, in the clear")
    ax.set_xlabel("rows of one request, 768 x 768")
    ax.set_ylabel("server, ms a row, one thread")
    ax.set_title("many rows", fontsize=10)


def circuits(ax, found):
    markers = dict(zip(dict.fromkeys(r["model"] for e in found["circuit_rows"] for r in e.values()), "os^D"))
    for kernel in found["circuit_rows"][0]:
        colour, name = STYLE[kernel]
        for model, marker in markers.items():
            points = [(e[kernel]["rows_per_ciphertext"], e[kernel]["ms_per_row"]) for e in found["circuit_rows"] if e[kernel]["model"] == model]
            ax.plot(*zip(*sorted(points)), marker + "-", color=colour, label=f"{model}, {name}")
    ax.set_xlabel("rows of one ciphertext")
    ax.set_ylabel("server, ms a row, two threads")
    ax.set_title("networks with activations", fontsize=10)


def main():
    figures, seal, out = sys.argv[1:]
    found, seal = json.load(open(figures)), json.load(open(seal))
    plt.rcParams["svg.hashsalt"] = "hemi"
    plt.rcParams["svg.fonttype"] = "none"
    fig, axes = plt.subplots(1, 3, figsize=(16, 5)) if "circuit_rows" in found else plt.subplots(1, 2, figsize=(11, 5))
    against_size(axes[0], found, seal)
    against_rows(axes[1], found)
    if len(axes) == 3:
        circuits(axes[2], found)
    for ax in axes:
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
        ax.grid(True, which="major", alpha=0.3)
        ax.legend(fontsize=7.5)
    fig.tight_layout()
    fig.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The table of docs/performance.md: `hemi bench linear` for the usual shapes, with every kernel table that runs here.

    bench/linear.py [path of the program hemi: build/bin/hemi] [options for `hemi bench linear`, such as --rows 8]

Prints Markdown. Exits as `hemi bench` does when a result is wrong."""

import json
import math
import subprocess
import sys

SHAPES = [(10, 10, 0), (128, 128, 0), (384, 384, 0), (768, 768, 0), (768, 768, 2048), (768, 768, 4096), (768, 3072, 0), (3072, 768, 0), (4096, 4096, 0)]


def bench(program, options, inputs, outputs, layout, kernel):
    command = [program, "bench", "linear", "--inputs", str(inputs), "--outputs", str(outputs), "--layout", str(layout), "--json"]
    done = subprocess.run(command + (["--kernel", kernel] if kernel else []) + options, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def kernels(program):
    """Those of portable, avx2 and avx512 that this processor runs, the portable one left out where there is another."""
    found = []
    for name in ("avx2", "avx512"):
        done = subprocess.run([program, "bench", "linear", "-d", "1", "-m", "1", "-n", "15", "--keys-count", "1", "--kernel", name, "--json"], capture_output=True)
        if done.returncode == 0 and json.loads(done.stdout)["kernel"] == name:
            found.append(name)
    return found or ["portable"]


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "build/bin/hemi"
    options = sys.argv[2:]
    tables = kernels(program)
    first = bench(program, options, 10, 10, 0, tables[0])
    print(f"Processor: {first['cpu']}; {first['threads']} thread(s); {first['rows']} row(s) a request; parameter set {first['set']}, {first['security_bits']} bits.\n")
    print("| shape | layout | " + " | ".join(f"server ms, {t}" for t in tables) + " | float32 ms | encrypt / decrypt ms | up B | down B | keys B | weights MB | load ms | error, predicted |")
    print("|---|---|" + "---|" * (len(tables) + 8))
    for inputs, outputs, layout in SHAPES:
        runs = [bench(program, options, inputs, outputs, layout, t) for t in tables]
        r = runs[-1]
        plain = f"{r['plain_ms']:.4f}" if r.get("plain_ms") else "-"
        print(
            f"| {inputs} x {outputs} | {r['layout']} | "
            + " | ".join(f"{x['server_ms']:.3f} ({x['server_ms_min']:.3f})" for x in runs)
            + f" | {plain} | {r['encrypt_ms']:.3f} / {r['decrypt_ms']:.3f} | {r['upload_bytes']} | {r['download_bytes']} | {r['evaluation_key_bytes']} "
            f"| {r['server_weight_bytes'] / 1e6:.1f} | {r['load_ms']:.0f} | 2^{math.log2(r['error_std_over_max']):.2f}, 2^{math.log2(r['predicted_error']):.2f} |",
            flush=True,
        )
    print("\nMedians; in brackets the least.")


if __name__ == "__main__":
    main()

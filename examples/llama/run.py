#!/usr/bin/python3
"""A model of Llama's kind (RMSNorm, rotary positions, grouped-query attention, SwiGLU), all projections remote.

q, k and v receive the same tensor, and so do gate and up: the library finds that at calibration, and one encryption and one
request serves each of the two groups. The weights are drawn from a seed but for the output layer (examples/language.py says why).
Needs transformers: examples/venv.sh installs it. Ends with a table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import language  # noqa: E402


def arguments(parser):
    language.arguments(parser)
    parser.add_argument("--layers", type=int, default=4, help="(default %(default)s)")
    parser.add_argument("--small", action="store_true", help="64 features in place of 512")


def figures(options, reference, results):
    return {"layers": options.layers, "products": 7 * options.layers, **language.figures(options, reference, results)}


def table(f):
    language.table(f"Llama's kind, {f['layers']} layers", f)


def check(f):
    if f["token_requests"] != 4 * f["layers"]:
        return f"{f['token_requests']:.0f} requests a token: those that share an input were not served together"
    return language.check(f)


if __name__ == "__main__":
    harness.main(__file__, "llama", __doc__, arguments, figures, table, check, harness.needs("transformers"))

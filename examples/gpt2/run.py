#!/usr/bin/python3
"""GPT-2, all projections remote: 4 encrypted matrix products per layer and token. Or, with --mlp N, the MLP blocks of the first N
layers, each as one module: Conv1D, GELU, Conv1D, dropout; all else is the client's.

The weights are those of GPT-2 small's shape (12 layers of 768, 124 million), drawn from a seed; only the output layer, which
stays with the client, is fitted, so that its logits are as different as those of a trained model (examples/language.py says how and
why). Needs transformers: examples/venv.sh installs it. Ends with a table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import language  # noqa: E402


def arguments(parser):
    language.arguments(parser)
    parser.add_argument("--layers", type=int, default=12, help="of 768 features (default %(default)s)")
    parser.add_argument("--mlp", type=int, default=0, metavar="N", help="MLP blocks of N layers instead, activations included; 0.8 GB of the server's memory each")
    parser.add_argument("--tolerance", type=float, default=0.005, help="of the error by polynomials, with --mlp (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="2 layers of 64 features instead")


def figures(options, reference, results):
    layers = 2 if options.small else options.layers
    return {"layers": layers, "products": 2 * options.mlp or 4 * layers, **language.figures(options, reference, results)}


def table(f):
    language.table(f"GPT-2, {f['layers']} layers", f)


if __name__ == "__main__":
    harness.main(__file__, "gpt2", __doc__, arguments, figures, table, language.check, harness.needs("transformers"))

#!/usr/bin/python3
"""Handwritten digits, classified by a network that is remote as a whole: convolutions, Linear layers and activations are one encrypted
computation, and the client, which has no weight at all, sends pixels and gets scores. Ends with a table, a line of JSON and a line
that says it worked.

  mlp      64-128-64-10, ReLU
  cnn-1    convolution 3 x 3 to 8 channels, ReLU, average pooling, Linear
  cnn-2    convolutions to 8 and 16 channels, ReLU after each, Linear"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import images  # noqa: E402
from model import NETS, ROWS, data  # noqa: E402


def arguments(parser):
    parser.add_argument("--model", choices=list(NETS), default="mlp", help="(default %(default)s)")
    parser.add_argument("--images", type=int, default=360, help="of the test set (default: all %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in one call of the model (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="of training (default %(default)s)")
    parser.add_argument("--bits", type=int, default=0, help="of the weights (default: as they are, which costs nothing here)")
    parser.add_argument("--rows", type=int, help=f"images in a ciphertext, a power of two; 0: what suits calls of one image (default: {ROWS})")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of the error by polynomials, relative to the outputs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    labels = data(options)[3]
    logits = {"float": reference["logits"], "simulated": reference["simulated"], "remote": results["logits"]}
    return {
        "model": options.model,
        **{f"accuracy_{how}": images.accuracy(y, labels) for how, y in logits.items()},
        **images.figures(reference, results),
        "reports": reference["reports"],
    }


def table(f):
    print(f"  {f['images']} test images         float  simulated     remote")
    print(f"  accuracy              {f['accuracy_float']:9.2%}  {f['accuracy_simulated']:9.2%}  {f['accuracy_remote']:9.2%}")
    print(f"  the same class as the float model's: {f['same_class']:.2%}")
    print(f"  logits: error {f['logit_error_rms']:.2%} rms, {f['logit_error_max']:.4f} at most (largest logit {f['logit_max']:.1f})\n")
    harness.table_of_reports(f["reports"])
    print()
    images.table(f)


def check(f):
    if abs(f["accuracy_remote"] - f["accuracy_float"]) > 0.01 or f["same_class"] < 0.99:
        return "the encrypted results differ too much from those of the float model"
    if f["accuracy_float"] < 0.94:
        return "the model was not trained well"


if __name__ == "__main__":
    harness.main(__file__, "digits_remote", __doc__, arguments, figures, table, check)

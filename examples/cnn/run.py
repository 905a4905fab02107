#!/usr/bin/python3
"""A convolutional network, trained on handwritten digits, with all its convolutions remote. Activations, pooling and the last
layer are the client's. With --block a part of it is remote as one module: convolution, normalisation, ReLU, convolution. Ends with a
table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import images  # noqa: E402


def arguments(parser):
    parser.add_argument("--block", action="store_true", help="one remote module, with an activation in it, in place of three convolutions")
    parser.add_argument("--images", type=int, default=360, help="of the test set (default: all %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images in one call of the model (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="of training (default %(default)s)")
    parser.add_argument("--bits", type=int, default=8, help="of the weights (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    labels = images.digits()[3][: options.images]
    accuracies = {"accuracy_float": images.accuracy(reference["logits"], labels), "accuracy_remote": images.accuracy(results["logits"], labels)}
    return {**accuracies, **images.figures(reference, results), "reports": reference["reports"]}


def table(f):
    print(f"  {f['images']} test images         float     remote")
    print(f"  accuracy              {f['accuracy_float']:9.2%}  {f['accuracy_remote']:9.2%}   the same class: {f['same_class']:.2%}")
    print(f"  logits: error {f['logit_error_rms']:.2%} rms, {f['logit_error_max']:.4f} at most (largest logit {f['logit_max']:.1f})\n")
    harness.table_of_reports(f["reports"])
    images.table(f)


def check(f):
    if f["accuracy_remote"] < f["accuracy_float"] - 0.01 or f["logit_error_rms"] > 0.05:
        return "the encrypted results differ too much from those of the float model"
    if f["accuracy_float"] < 0.95:
        return "the model was not trained well"


if __name__ == "__main__":
    harness.main(__file__, "cnn", __doc__, arguments, figures, table, check)

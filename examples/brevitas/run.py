#!/usr/bin/python3
"""A network of few bits, trained with Brevitas' quantisers (QAT), remote as a whole.

Weights are used exactly as the quantisers make them, and in the clear (fhe="disable") so are activations: results are those of
Brevitas. Under encryption the steps of an activation are replaced by the smooth function behind them, as a polynomial: what the
network learnt to do with the rounding is lost, and the table says how often that changes the class. Needs Brevitas: examples/venv.sh
installs it. Ends with a table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import images  # noqa: E402
from model import NETS, ROWS, TOLERANCE  # noqa: E402


def arguments(parser):
    parser.add_argument("--model", choices=list(NETS), default="cnn", help="64-64-32-10, or two convolutions and a Linear (default %(default)s)")
    parser.add_argument("--weight-bits", type=int, default=4, help="(default %(default)s)")
    parser.add_argument("--bits", type=int, default=4, help="of activations (default %(default)s)")
    parser.add_argument("--tolerance", type=float, help=f"of the error by polynomials (default: by bits {TOLERANCE}, else the least that can be met)")
    parser.add_argument("--rows", type=int, default=ROWS, help="images in a ciphertext, a power of two (default %(default)s)")
    parser.add_argument("--images", type=int, default=360, help="of the test set (default: all %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in one call of the model (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="of training (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    labels = images.digits()[3][: options.images]
    brevitas = reference["logits"]
    logits = {"brevitas": brevitas, "clear": reference["clear"], "simulated": reference["simulated"], "remote": results["logits"]}
    f = {"model": options.model, "weight_bits": options.weight_bits, "bits": options.bits}
    for how, y in logits.items():
        f[f"accuracy_{how}"] = images.accuracy(y, labels)
        f[f"same_class_{how}"] = images.accuracy(y, brevitas.argmax(1))
        f[f"error_{how}"] = harness.relative_rms(y, brevitas)
    f["error_of_encryption"] = (results["logits"] - reference["simulated"]).abs().max().item()
    f["error_executed"] = (reference["executed"] - reference["simulated"][: len(reference["executed"])]).abs().max().item()
    return {**f, **images.figures(reference, results), "reports": reference["reports"]}


HOW = {"brevitas": "Brevitas", "clear": "Hemi, in the clear", "simulated": "with polynomials", "remote": "remote, encrypted"}


def table(f):
    print(f"  {f['model']}, {f['weight_bits']}-bit weights, {f['bits']}-bit activations; {f['images']} test images")
    print("                       accuracy   class as Brevitas'   logits' error, rms")
    for how, title in HOW.items():
        print(f"  {title:<20}{f[f'accuracy_{how}']:9.2%} {f[f'same_class_{how}']:20.2%} {f[f'error_{how}']:20.2%}")
    print(f"  encryption adds at most {f['error_of_encryption']:.5f} to a logit (largest {f['logit_max']:.1f})\n")
    harness.table_of_reports(f["reports"])
    print()
    images.table(f)


def check(f):
    if f["same_class_clear"] < 1 or f["error_clear"] > 1e-3:
        return "in the clear, results are not those of Brevitas"
    if max(f["error_of_encryption"], f["error_executed"]) > 0.01 * f["logit_max"]:
        return "encrypted results are not those of the simulation"
    if f["same_class_remote"] < 0.97 or f["accuracy_remote"] < f["accuracy_brevitas"] - 0.02:
        return "polynomials change too many results"
    if f["accuracy_brevitas"] < 0.93:
        return "the model was not trained well"


if __name__ == "__main__":
    harness.main(__file__, "brevitas", __doc__, arguments, figures, table, check, harness.needs("brevitas", "onnx", "onnxoptimizer"))

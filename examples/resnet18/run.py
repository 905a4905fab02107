#!/usr/bin/python3
"""A network of ResNet-18's shape on random 3 x 64 x 64 images, with all its convolutions remote. The weights are drawn from a
seed. Ends with a table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import images  # noqa: E402


def arguments(parser):
    parser.add_argument("--images", type=int, default=4, help="(default %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (default %(default)s)")
    parser.add_argument("--bits", type=int, default=0, help="of the weights (default: 0, which lets the compiler choose)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    return images.figures(reference, results)


def table(f):
    print(f"  {f['images']} images; {len(f['layers'])} remote convolutions each")
    print(
        f"  1000 outputs: error {f['logit_error_rms']:.2%} rms of their spread, {f['logit_error_max']:.4f} at most "
        f"(largest {f['logit_max']:.1f}); the largest is the same for {f['same_class']:.0%} of the images\n"
    )
    images.table(f)


def check(f):
    if f["logit_error_rms"] > 0.1:
        return f"the outputs differ by {f['logit_error_rms']:.2%} from those of the float model"


if __name__ == "__main__":
    harness.main(__file__, "resnet18", __doc__, arguments, figures, table, check)

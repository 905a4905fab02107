#!/usr/bin/python3
"""The model's owner: draws the weights, compiles, saves.      owner.py FOLDER"""

import sys
import time
from pathlib import Path

import torch
from harness import options_of, say
from model import NAME, build, data, remote_names

from hemi_fhe.torch.hybrid_model import HybridFHEModel


@torch.no_grad()
def main():
    folder = Path(sys.argv[1])
    options = options_of(folder)
    model = build(options)
    calibration = torch.randn(16, 3, 64, 64)
    for module in model.modules():  # what training would leave in the normalisations: mean and variance of real inputs
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(calibration)
    model.eval()
    names = remote_names(model)
    torch.save({"logits": model(data(options))}, folder / "reference.pth")
    hybrid = HybridFHEModel(model, names, model_name=NAME)
    start = time.perf_counter()
    hybrid.compile_model(calibration[:4], n_bits=options.bits or None)
    say("owner", f"{len(names)} convolutions compiled in {time.perf_counter() - start:.1f} s")
    hybrid.save_and_clear_private_info(folder / "models" / NAME)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""The application: trains its adapters. Each step is a forward and a backward pass, both through encrypted products.
client.py URL FOLDER"""

import sys
import time
from pathlib import Path

import torch
from harness import Progress, options_of
from model import NAME, build, fine_tune, remote_names

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def main():
    url, folder = sys.argv[1], Path(sys.argv[2])
    options = options_of(folder)
    model = build(options)
    names = remote_names(model)
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=False)
    hybrid = HybridFHEModel(model, names, server_remote_address=url, model_name=NAME)
    hybrid.init_client()
    start = time.perf_counter()
    losses = fine_tune(model, hybrid, options, Progress("fine-tuning", options.steps, "steps"))
    seconds = time.perf_counter() - start
    adapters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    torch.save({"losses": losses, "adapters": adapters, "seconds": seconds, "stats": hybrid.stats()}, folder / "results.pth")


if __name__ == "__main__":
    main()

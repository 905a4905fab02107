#!/usr/bin/python3
"""The model's owner: trains, compiles, saves.      owner.py FOLDER"""

import sys
import time
from pathlib import Path

import torch
from harness import options_of, say
from model import CNN, NAME, REMOTE, data
from torch.nn.functional import cross_entropy

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def train(model, x, y, epochs, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return model.eval()


def main():
    folder = Path(sys.argv[1])
    options = options_of(folder)
    torch.manual_seed(options.seed)
    x_train, y_train, x_test, _ = data()
    start = time.perf_counter()
    model = train(CNN(), x_train, y_train, options.epochs)
    say("owner", f"trained on {len(x_train)} images in {time.perf_counter() - start:.1f} s")
    hybrid = HybridFHEModel(model, REMOTE, model_name=NAME)
    start = time.perf_counter()
    hybrid.compile_model(x_train, n_bits=options.bits or None)
    say("owner", f"{', '.join(REMOTE)} compiled in {time.perf_counter() - start:.1f} s")
    with torch.no_grad():
        torch.save({"logits": hybrid(x_test[: options.images], fhe="torch")}, folder / "reference.pth")
    hybrid.save_and_clear_private_info(folder / "models" / NAME)


if __name__ == "__main__":
    main()

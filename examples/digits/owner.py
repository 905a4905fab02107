#!/usr/bin/python3
"""The model's owner: trains, compiles, saves.      owner.py FOLDER

FOLDER/models/digits goes to the server; its model.pth to the application. FOLDER/reference.pth has the logits of the float
model, and of the simulation, for the final table."""

import sys
import time
from pathlib import Path

import torch
from model import NAME, REMOTE, MLP, data
from torch.nn.functional import cross_entropy

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def train(model, x, y, epochs=40, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return model.eval()


def main():
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    x_train, y_train, x_test, _ = data()
    start = time.perf_counter()
    model = train(MLP(), x_train, y_train)
    print(f"owner: trained 64-128-64-10 on {len(x_train)} images in {time.perf_counter() - start:.1f} s")

    hybrid = HybridFHEModel(model, REMOTE, model_name=NAME)
    start = time.perf_counter()
    hybrid.compile_model(x_train, n_bits=8)
    print(f"owner: compiled {', '.join(REMOTE)} in {time.perf_counter() - start:.1f} s")
    with torch.no_grad():
        reference = {"float": hybrid(x_test, fhe="torch"), "simulated": hybrid(x_test, fhe="simulate")}
    reference["security_bits"] = min(module.info["security_bits"] for module in hybrid.private_q_modules.values())
    torch.save(reference, folder / "reference.pth")
    hybrid.save_and_clear_private_info(folder / "models" / NAME)
    print(f"owner: saved to {folder / 'models' / NAME}; no private weight is left in this process")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""The model's owner: trains the model on one text, compiles its matrices and their transposes.      owner.py FOLDER"""

import copy
import sys
import time
from pathlib import Path

import torch
from harness import options_of, say
from model import NAME, batches, build, fine_tune, loss_of, remote_names

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def train(model, options):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for piece in batches("LICENSE", options.pretrain, 32, options.seed):
        optimizer.zero_grad()
        loss = loss_of(model, piece)
        loss.backward()
        optimizer.step()
    for layer in model.modules():  # what the adapters learnt goes into the matrices: they begin at zero again
        if hasattr(layer, "base"):
            with torch.no_grad():
                layer.base.weight += layer.b.weight @ layer.a.weight
                layer.b.weight.zero_()
    return loss.item()


def main():
    folder = Path(sys.argv[1])
    options = options_of(folder)
    model = build(options)
    start = time.perf_counter()
    loss = train(model, options)
    say("owner", f"trained in {time.perf_counter() - start:.1f} s: loss {loss:.3f} on the text it was trained on")
    local = copy.deepcopy(model)
    losses = fine_tune(local, local, options)
    adapters = {name: p.detach().clone() for name, p in local.named_parameters() if p.requires_grad}
    torch.save({"losses": losses, "adapters": adapters, "begin": dict(model.state_dict())}, folder / "reference.pth")

    names = remote_names(model)
    hybrid = HybridFHEModel(model, names, model_name=NAME)
    start = time.perf_counter()
    hybrid.compile_model(next(batches("LICENSE", 1, 16, 5))[:, :-1], n_bits=options.bits or None, backward=True)
    say("owner", f"{len(names)} matrices and their transposes compiled in {time.perf_counter() - start:.1f} s")
    hybrid.save_and_clear_private_info(folder / "models" / NAME)


if __name__ == "__main__":
    main()

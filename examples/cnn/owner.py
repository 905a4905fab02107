#!/usr/bin/python3
"""The model's owner: trains, compiles, saves.      owner.py FOLDER"""

import sys
import time
from pathlib import Path

import images
import torch
from harness import options_of, reports, say
from model import NAME, build

from hemi_fhe.torch.hybrid_model import HybridFHEModel

folder = Path(sys.argv[1])
options = options_of(folder)
torch.manual_seed(options.seed)
x_train, y_train, x_test, _ = images.digits()
start = time.perf_counter()
model = images.train(build(options), x_train, y_train, options.epochs)
say("owner", f"trained on {len(x_train)} images in {time.perf_counter() - start:.1f} s")
hybrid = HybridFHEModel(model, model.REMOTE, model_name=NAME)
start = time.perf_counter()
hybrid.compile_model(x_train, n_bits=options.bits or None)
say("owner", f"{', '.join(model.REMOTE)} compiled in {time.perf_counter() - start:.1f} s")
with torch.no_grad():
    torch.save({"logits": hybrid(x_test[: options.images], fhe="torch"), "reports": reports(hybrid)}, folder / "reference.pth")
hybrid.save_and_clear_private_info(folder / "models" / NAME)

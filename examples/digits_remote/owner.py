#!/usr/bin/python3
"""The model's owner: trains, compiles, saves.      owner.py FOLDER"""

import sys
import time
from pathlib import Path

import images
import torch
from harness import options_of, reports, say
from model import NAME, NETS, REMOTE, ROWS, Classifier, data

from hemi_fhe.torch.hybrid_model import HybridFHEModel

folder = Path(sys.argv[1])
options = options_of(folder)
torch.manual_seed(options.seed)
x_train, y_train, x_test, _ = data(options)
start = time.perf_counter()
model = images.train(Classifier(NETS[options.model]()), x_train, y_train, options.epochs)
say("owner", f"{options.model} trained on {len(x_train)} images in {time.perf_counter() - start:.1f} s")
hybrid = HybridFHEModel(model, REMOTE, model_name=NAME)
start = time.perf_counter()
rows = ROWS[options.model] if options.rows is None else options.rows or None
hybrid.compile_model(x_train, n_bits=options.bits or None, tolerance=options.tolerance, rows=rows)
say("owner", f"compiled in {time.perf_counter() - start:.1f} s: layers and activations as one module")
with torch.no_grad():
    reference = {"logits": hybrid(x_test, fhe="torch"), "simulated": hybrid(x_test, fhe="simulate")}
torch.save({**reference, "reports": reports(hybrid)}, folder / "reference.pth")
hybrid.save_and_clear_private_info(folder / "models" / NAME)

#!/usr/bin/python3
"""The model's owner: trains with Brevitas' quantisers, compiles, saves.      owner.py FOLDER"""

import sys
import time
import warnings
from pathlib import Path

import images
import torch
from harness import options_of, reports, say
from model import NAME, NETS, REMOTE, ROWS, TOLERANCE, Classifier

from hemi_fhe.torch.compile import compile_brevitas_qat_model
from hemi_fhe.torch.hybrid_model import HybridFHEModel

warnings.filterwarnings("ignore", message="Named tensors")  # of Brevitas
folder = Path(sys.argv[1])
options = options_of(folder)
torch.manual_seed(options.seed)
x_train, y_train, x_test, _ = images.digits()
x_test = x_test[: options.images]
how = {"tolerance": TOLERANCE.get(options.bits) if options.tolerance is None else options.tolerance, "rows": options.rows or ROWS}

start = time.perf_counter()
net = images.train(NETS[options.model](options.weight_bits, options.bits), x_train, y_train, options.epochs)
say("owner", f"{options.model} trained in {time.perf_counter() - start:.1f} s: weights of {options.weight_bits} bits, activations of {options.bits}")
with torch.no_grad():
    logits = net(x_test)
reference = {"logits": getattr(logits, "value", logits)}  # of Brevitas

# by itself, as the reference system has it
start = time.perf_counter()
compiled = compile_brevitas_qat_model(net, x_train, **how)
say("owner", f"compiled in {time.perf_counter() - start:.1f} s")
reference["clear"] = compiled(x_test, fhe="disable")  # quantisers and all
reference["simulated"] = compiled(x_test, fhe="simulate")  # polynomials
start = time.perf_counter()
reference["executed"] = compiled(x_test[:ROWS], fhe="execute")
say("owner", f"{len(reference['executed'])} images encrypted, computed and decrypted in this process in {time.perf_counter() - start:.1f} s, keys included")

# and as a part of a model that is served
hybrid = HybridFHEModel(Classifier(net), REMOTE, model_name=NAME)
hybrid.compile_model(x_train, n_bits=None, **how)
torch.save({**reference, "reports": reports(hybrid)}, folder / "reference.pth")
hybrid.save_and_clear_private_info(folder / "models" / NAME)

#!/usr/bin/python3
"""The application: classifies the test images.      client.py URL FOLDER"""

import sys
from pathlib import Path

import images
import torch
from harness import options_of
from model import NAME, build

from hemi_fhe.torch.hybrid_model import HybridFHEModel

url, folder = sys.argv[1], Path(sys.argv[2])
options = options_of(folder)
model = build(options).eval()
model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=False)
hybrid = HybridFHEModel(model, model.REMOTE, server_remote_address=url, model_name=NAME)
hybrid.init_client()
torch.save(images.classify(hybrid, images.digits()[2][: options.images], options.batch), folder / "results.pth")

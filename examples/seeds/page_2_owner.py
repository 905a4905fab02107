# The newer page: the model's owner.
import numpy as np
import os
import torch

from pathlib import Path
from torch import nn

from hemi_fhe.torch.hybrid_model import HybridFHEModel, tuple_to_underscore_str
from hemi_fhe.deployment import FHEModelServer

class FCSmall(nn.Module):
    """Torch model for the tests."""

    def __init__(self, dim):
        super().__init__()  # not on the page
        self.seq = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x):
        return self.seq(x)

model = FCSmall(10)
model_name = "FCSmall"
submodule_name = "seq.0"

inputs = torch.Tensor(np.random.uniform(size=(10, 10)))
# Prints ['', 'seq', 'seq.0', 'seq.1', 'seq.2']
print([k for (k, _) in model.named_modules()])

# Not on the page: the float model for the check in run.py
torch.save(model.state_dict(), Path(os.path.abspath('')) / "float.pth")

# Create a hybrid model
hybrid_model = HybridFHEModel(model, [submodule_name])
hybrid_model.compile_model(inputs, n_bits=8)  # not on this page, but on the older one

models_dir = Path(os.path.abspath('')) / "compiled_models"
model_dir = models_dir / model_name
hybrid_model.save_and_clear_private_info(model_dir, via_mlir=True)

# The page's "Server Side Deployment" goes on in the same script; page_2_server.py has it again, for the server
input_shape_subdir = tuple_to_underscore_str( (1,) + inputs.shape[1:] )
MODULES = { model_name: { submodule_name: {"path":  model_dir / submodule_name / input_shape_subdir }}}
server =  FHEModelServer(str(MODULES[model_name][submodule_name]["path"]))

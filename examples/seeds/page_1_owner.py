# The older page, "Compilation": the model's owner.
from pathlib import Path  # not on the page

import torch  # not on the page
from torch import nn
from hemi_fhe.torch.hybrid_model import HybridFHEModel

class FCSmall(nn.Module):
    """Torch model for the tests."""

    def __init__(self, dim):
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x):
        return self.seq(x)

model = FCSmall(10)
model_name = "FCSmall"
submodule_name = "seq_0"

# Prints ['', 'seq', 'seq.0', 'seq.1', 'seq.2']
print([k for (k, _) in model.named_modules()])

# Not on the page: the calibration inputs, and the float model for the check in run.py
inputs = torch.rand(100, 10) * 2 - 1
torch.save(model.state_dict(), Path(__file__).parent / "float.pth")

# Create a hybrid model
hybrid_model = HybridFHEModel(model, [submodule_name])
hybrid_model.compile_model(
    inputs,
    n_bits=8,
)

models_dir = Path(__file__).parent / "compiled_models"
models_dir.mkdir(exist_ok=True)
model_dir = models_dir / model_name
hybrid_model.save_and_clear_private_info(model_dir, via_mlir=True)

# The older page, "Client Side": the application. It has model.pth from the owner, and no weight of the remote module.
import os  # not on the page
from pathlib import Path  # not on the page

import torch  # not on the page
from torch import nn  # not on the page
from hemi_fhe.torch.hybrid_model import HybridFHEMode, HybridFHEModel  # not on the page

# Not on the page: "the model is loaded normally with Pytorch"
class FCSmall(nn.Module):
    """Torch model for the tests."""

    def __init__(self, dim):
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x):
        return self.seq(x)

dim = 10
model = FCSmall(dim)
model.load_state_dict(torch.load(Path(__file__).parent / "model.pth", weights_only=True), strict=False)
model_name = "FCSmall"
submodule_name = "seq_0"

# Modify model to use remote FHE server instead of local weights
hybrid_model = HybridFHEModel(
    model,
    submodule_name,
    server_remote_address=os.environ.get("SERVER", "http://0.0.0.0:8000"),  # run.py's server has a port of its own
    model_name=f"{model_name}",
    verbose=False,
)

path_to_clients = Path(__file__).parent / "clients"
hybrid_model.init_client(path_to_clients=path_to_clients)

for module in hybrid_model.remote_modules.values():
    module.fhe_local_mode = HybridFHEMode.REMOTE    

hybrid_model.forward(torch.randn((dim, )))

# Not on the page: results for the check in run.py
x = torch.randn(20, dim)
torch.save((x, hybrid_model.forward(x), hybrid_model.forward(x[0])), Path(__file__).parent / "results.pth")

# The newer page, "Server Side Deployment". Then the program hemi-server takes over: see run.py.
import os
import sys  # not on the page

from pathlib import Path

from hemi_fhe.torch.hybrid_model import tuple_to_underscore_str
from hemi_fhe.deployment import FHEModelServer

# Not on the page: the names that the owner's script has
model_name, submodule_name = "FCSmall", "seq.0"
models_dir = Path(os.path.abspath('')) / "compiled_models"
model_dir = models_dir / model_name
inputs_shape = (10, 10)

input_shape_subdir = tuple_to_underscore_str( (1,) + inputs_shape[1:] )
MODULES = { model_name: { submodule_name: {"path":  model_dir / submodule_name / input_shape_subdir }}}
server =  FHEModelServer(str(MODULES[model_name][submodule_name]["path"]))

# Not on the page, which leaves the end-points to the reader: the program hemi-server, in place of this process
os.execv(sys.argv[1], [sys.argv[1], str(models_dir), "--port", "0", "--json", "--quiet", "--no-auth", "--store", "memory"])

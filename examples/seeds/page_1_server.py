# The older page, "Server Side Deployment".
import json  # not on the page
from pathlib import Path  # not on the page

from hemi_fhe.deployment import HTTPServer  # not on the page

# Not on the page: the names that the owner's script has
model_name, submodule_name = "FCSmall", "seq_0"
models_dir = Path(__file__).parent / "compiled_models"
model_dir = models_dir / model_name

def make_server():  # not on the page, whose `return` needs a function
    from hemi_fhe.deployment import FHEModelServer
    MODULES = { model_name: { submodule_name: {"path":  model_dir / "seq_0" }}}
    return FHEModelServer(str(MODULES[model_name][submodule_name]["path"]))

make_server()

# Not on the page, which leaves the end-points to the reader. HTTPServer has them all; so does the program hemi-server.
# Port 0 is any free one; without it, 8000.
with HTTPServer(models_dir, port=0) as server:
    print(json.dumps({"port": server.port}), flush=True)
    server.wait()

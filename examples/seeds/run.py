#!/usr/bin/python3
"""Runs the code of the two seed pages: owner, server and client as three processes with a folder each, over HTTP, and
compares what the client gets with the float model. Then both again with "seq", the Linear, the ReLU and the other Linear, as one
remote module. Ends with a line of JSON and a line that says it worked."""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "python")]

import serving  # noqa: E402
import torch  # noqa: E402


# What is different with "seq": its name; and that it is calibrated with inputs like those the client will send, Gaussian ones. A linear
# module takes any; polynomials, which take the place of the ReLU, are good on a range only.
WHOLE = [
    (r'"seq[._]0"', '"seq"'),
    (r"torch\.rand\(100, 10\) \* 2 - 1", "torch.randn(1000, 10)"),
    (r"np\.random\.uniform\(size=\(10, 10\)\)", "np.random.normal(size=(1000, 10))"),
]


def run_page(page, folder, module="seq.0"):
    for role in ("owner", "server", "client"):
        (folder / role).mkdir()
        text = (HERE / f"page_{page}_{role}.py").read_text()
        for pattern, replacement in WHOLE if module == "seq" else ():
            text = re.sub(pattern, replacement, text)
        (folder / role / f"page_{page}_{role}.py").write_text(text)
    owner, server, client = (folder / role for role in ("owner", "server", "client"))

    print(f"page {page}, module {module}: the owner compiles", flush=True)
    serving.python(owner / f"page_{page}_owner.py", cwd=owner)
    # What each one gets: the server the compiled modules, the application the client model
    shutil.copytree(owner / "compiled_models", server / "compiled_models")
    shutil.copy(owner / "compiled_models" / "FCSmall" / "model.pth", client)
    if module == "seq":
        assert torch.load(client / "model.pth") == {}  # no weight of any layer

    environment = {**os.environ, "PYTHONPATH": str(serving.ROOT / "python")}
    command = [sys.executable, server / f"page_{page}_server.py", serving.PROGRAM]
    with serving.Server(command, cwd=server, env=environment) as process:
        print(f"page {page}, module {module}: serving at {process.url}; the client calls", flush=True)
        serving.python(client / f"page_{page}_client.py", cwd=client, env={"SERVER": process.url})

    weights = torch.load(owner / "float.pth")
    x, many, one = torch.load(client / "results.pth")
    linear = torch.nn.functional.linear
    hidden = torch.relu(linear(x, weights["seq.0.weight"], weights["seq.0.bias"]))
    expected = linear(hidden, weights["seq.2.weight"], weights["seq.2.bias"])
    assert many.shape == (20, 10) and one.shape == (10,), (many.shape, one.shape)
    return max((many - expected).abs().max().item(), (one - expected[0]).abs().max().item())


def main():
    serving.stop_cleanly_on_sigterm()
    errors = {}
    for module in ("seq.0", "seq"):
        for page in (1, 2):
            with tempfile.TemporaryDirectory(prefix="hemi-seeds-") as folder:
                error = run_page(page, Path(folder), module)
            print(f"page {page}, module {module}: largest difference from the float model: {error:.5f}", flush=True)
            errors[f"seeds_error_page_{page}" + ("_whole" if module == "seq" else "")] = round(error, 6)
    print(json.dumps(errors))
    if any(error > (0.1 if "whole" in name else 0.05) for name, error in errors.items()):
        sys.exit("the results differ too much from those of the float model")
    print("seeds: it worked: both pages ran, with a layer and with all three, client and server in different processes, over HTTP")


if __name__ == "__main__":
    main()

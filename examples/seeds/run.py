#!/usr/bin/python3
"""Runs the code of the two seed pages: owner, server and client as three processes with a folder each, over HTTP, and
compares what the client gets with the float model. Ends with a line of JSON and a line that says it worked."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "python")]

import serving  # noqa: E402
import torch  # noqa: E402


def run_page(page, folder):
    for role in ("owner", "server", "client"):
        (folder / role).mkdir()
        shutil.copy(HERE / f"page_{page}_{role}.py", folder / role)
    owner, server, client = (folder / role for role in ("owner", "server", "client"))

    print(f"page {page}: the owner compiles", flush=True)
    serving.python(owner / f"page_{page}_owner.py", cwd=owner)
    # What each one gets: the server the compiled modules, the application the client model
    shutil.copytree(owner / "compiled_models", server / "compiled_models")
    shutil.copy(owner / "compiled_models" / "FCSmall" / "model.pth", client)

    environment = {**os.environ, "PYTHONPATH": str(serving.ROOT / "python")}
    command = [sys.executable, server / f"page_{page}_server.py", serving.PROGRAM]
    with serving.Server(command, cwd=server, env=environment) as process:
        print(f"page {page}: serving at {process.url}; the client calls", flush=True)
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
    for page in (1, 2):
        with tempfile.TemporaryDirectory(prefix="hemi-seeds-") as folder:
            errors[page] = run_page(page, Path(folder))
        print(f"page {page}: largest difference from the float model: {errors[page]:.5f}", flush=True)
    worked = all(error < 0.05 for error in errors.values())
    print(json.dumps({"seeds_error_page_1": round(errors[1], 6), "seeds_error_page_2": round(errors[2], 6)}))
    if not worked:
        sys.exit("the results differ from the float model by more than 0.05")
    print("seeds: it worked: both pages ran, client and server in different processes, over HTTP")


if __name__ == "__main__":
    main()

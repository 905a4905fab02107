#!/usr/bin/python3
"""The application: classifies the test images, one request per image and layer, as they would come one by one.

    client.py URL FOLDER        FOLDER has model.pth and gets results.pth"""

import sys
import time
from pathlib import Path

import torch
from model import NAME, REMOTE, MLP, data

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def progress(done, total, start, width=30):
    rate = done / (time.perf_counter() - start)
    bar = "#" * (width * done // total)
    if sys.stderr.isatty():
        print(f"\r  [{bar:<{width}}] {done}/{total}  {rate:.0f} images/s ", end="", file=sys.stderr, flush=True)
    elif done == total or done % 60 == 0:
        print(f"  [{bar:<{width}}] {done}/{total}  {rate:.0f} images/s", file=sys.stderr, flush=True)
    if done == total and sys.stderr.isatty():
        print(file=sys.stderr)


def main():
    url, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    model = MLP()
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=False)
    model.eval()
    hybrid = HybridFHEModel(model, REMOTE, server_remote_address=url, model_name=NAME)
    hybrid.init_client(path_to_clients=folder / "clients")
    hybrid.set_fhe_mode("remote")

    images = data()[2]
    logits, keys, start = [], 0, None
    for i, image in enumerate(images):
        logits.append(hybrid(image))
        if i == 0:  # the first call also uploads the keys: it is not in the times
            keys = sum(s["evaluation_key_bytes"] for s in hybrid.stats().values())
            first = hybrid.stats()
            start = time.perf_counter()
        else:
            progress(i + 1, len(images), start)
    seconds = time.perf_counter() - start
    last = hybrid.stats()
    layers = {
        name: {key: (last[name][key] - first[name][key]) / (len(images) - 1) for key in last[name] if key != "last"} for name in last
    }
    torch.save(
        {"logits": torch.stack(logits), "layers": layers, "key_bytes": keys, "ms_per_image": seconds * 1000 / (len(images) - 1)},
        folder / "results.pth",
    )


if __name__ == "__main__":
    main()

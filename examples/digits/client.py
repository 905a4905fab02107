#!/usr/bin/python3
"""The application: classifies the test images, one request per image and layer, as they would come one by one.

    client.py URL FOLDER        FOLDER has model.pth and gets results.pth"""

import sys
import time
from pathlib import Path
from statistics import median

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
    logits, calls, start = [], [], None
    for i, image in enumerate(images):
        before = time.perf_counter()
        logits.append(hybrid(image))
        milliseconds = (time.perf_counter() - before) * 1000
        last = {name: stats["last"] for name, stats in hybrid.stats().items()}
        if i == 0:  # the first call also uploads the keys: it is not in the times
            keys = sum(layer["evaluation_key_bytes"] for layer in last.values())
            start = time.perf_counter()
        else:
            calls.append((milliseconds, last))
            progress(i + 1, len(images), start)
    layers = {name: {key: median(last[name][key] for _, last in calls) for key in calls[0][1][name]} for name in REMOTE}
    spent = lambda last, key: sum(layer[key] for layer in last.values())  # noqa: E731
    image = {
        "ms_per_image": median(ms for ms, _ in calls),
        "client_ms": median(ms - spent(last, "network_ms") - spent(last, "server_ms") for ms, last in calls),
        "network_ms": median(spent(last, "network_ms") for _, last in calls),
        "server_ms": median(spent(last, "server_ms") for _, last in calls),
        "evaluation_key_bytes": keys,
    }
    torch.save({"logits": torch.stack(logits), "layers": layers, "image": image}, folder / "results.pth")


if __name__ == "__main__":
    main()

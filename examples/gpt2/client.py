#!/usr/bin/python3
"""The application: greedy generation with a KV cache, all projections on the server.      client.py URL FOLDER"""

import sys
import time
from pathlib import Path

import torch
from harness import Progress, options_of, totals
from model import BYTES, NAME, build, generate, remote_names

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def main():
    url, folder = sys.argv[1], Path(sys.argv[2])
    options, given = options_of(folder), torch.load(folder / "given.pth")
    model = build(options)
    names = remote_names(model)
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=False)
    hybrid = HybridFHEModel(model, names, server_remote_address=url, model_name=NAME)
    hybrid.init_client()
    steps = []  # (seconds, figures summed so far)

    def step(ids, past):
        start = time.perf_counter()
        out = hybrid(ids, past_key_values=past, use_cache=True)
        steps.append((time.perf_counter() - start, totals(hybrid.stats())))
        return out.logits[0, -1, :BYTES], out.past_key_values

    with torch.no_grad():
        forced, logits = generate(step, given["prompt"], options.tokens, given["follows"], Progress("same prefix", options.tokens, "tokens"))
        free, _ = generate(step, given["prompt"], options.free, None, Progress("free", options.free, "tokens"))
    torch.save({"forced": forced, "logits": logits, "free": free, "steps": steps}, folder / "results.pth")


if __name__ == "__main__":
    main()

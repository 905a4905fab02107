#!/usr/bin/python3
"""The model's owner: seeded GPT-2 weights, the output layer fitted, all projections compiled.      owner.py FOLDER

Logits of a model of random weights are nearly uniform: the largest two of 50,257 often differ by less than any 8-bit quantisation
changes them, and to compare tokens would say nothing. So the output layer, which stays with the client, is fitted: ridge regression of the
next byte of a text on the last hidden states. Nothing else is trained; all that is remote is as it was drawn."""

import sys
import time
from pathlib import Path

import torch
from harness import options_of, say
from model import BYTES, NAME, PROMPT, build, generate, remote_names, text

from hemi_fhe.torch.hybrid_model import HybridFHEModel


def fit_output_layer(model, ids, context=256, ridge=1e-2):
    parts = [model.transformer(part[None]).last_hidden_state[0] for part in ids[:-1].split(context)]
    hidden = torch.cat(parts).double()
    wanted = torch.nn.functional.one_hot(ids[1:], BYTES).double()
    gram = hidden.T @ hidden
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    model.lm_head.weight.zero_()  # rows of tokens that are no bytes are never the largest
    model.lm_head.weight[:BYTES] = torch.linalg.solve(gram, hidden.T @ wanted).T.float()
    return (model.lm_head(hidden.float()).argmax(-1) == ids[1:]).double().mean().item()


def main():
    folder = Path(sys.argv[1])
    options = options_of(folder)
    with torch.no_grad():
        model, ids = build(options), text()[: 2049]
        names = remote_names(model)
        start = time.perf_counter()
        fitted = fit_output_layer(model, ids)
        say("owner", f"output layer fitted in {time.perf_counter() - start:.1f} s: {fitted:.0%} of the next bytes are right")
        prompt = ids[1000 : 1000 + PROMPT]

        def step(ids, past):
            out = model(ids, past_key_values=past, use_cache=True)
            return out.logits[0, -1, :BYTES], out.past_key_values

        follows = ids[1000 + PROMPT :]  # each step of the comparison is fed the same tokens: the text
        tokens, logits = generate(step, prompt, options.tokens, follows)
        free, _ = generate(step, prompt, options.free)
        torch.save({"tokens": tokens, "logits": logits, "free": free, "fitted": fitted}, folder / "reference.pth")
        torch.save({"prompt": prompt, "follows": follows}, folder / "given.pth")

        hybrid = HybridFHEModel(model, names, model_name=NAME)
        start = time.perf_counter()
        hybrid.compile_model({"input_ids": ids[None, :128]}, n_bits=options.bits or None)
        bits = sorted({module.info["weight_bits"] for module in hybrid.private_q_modules.values()})
        say("owner", f"{len(names)} projections compiled in {time.perf_counter() - start:.1f} s, weights of {' or '.join(map(str, bits))} bits")
        start = time.perf_counter()
        hybrid.save_and_clear_private_info(folder / "models" / NAME)
        say("owner", f"saved in {time.perf_counter() - start:.1f} s; no private weight is left in this process")


if __name__ == "__main__":
    main()

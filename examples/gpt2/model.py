"""GPT-2 with random weights, but for its output layer, which is fitted to a text: see owner.py."""

import torch
from language import BYTES
from transformers import GPT2Config, GPT2LMHeadModel

NAME = "gpt2"


def build(options):
    size = {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": BYTES} if options.small else {"n_layer": options.layers}
    torch.manual_seed(options.seed)
    # tied to the input's, the output layer of random weights would repeat the last token for ever
    return GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False, **size)).eval()


def remote_names(model, options):
    if options.mlp:
        return [f"transformer.h.{i}.mlp" for i in range(options.mlp)]
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    return [f"transformer.h.{i}.{part}" for i in range(len(model.transformer.h)) for part in parts]

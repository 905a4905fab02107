"""GPT-2 with random weights, but for its output layer, which is fitted to a text: see owner.py."""

import torch
from harness import serving
from transformers import GPT2Config, GPT2LMHeadModel

NAME = "gpt2"
PROMPT = 32  # tokens
BYTES = 256  # tokens in use: text is taken byte by byte


def text():
    return torch.tensor(list((serving.ROOT / "LICENSE").read_bytes()))


def build(options):
    size = {"n_embd": 64, "n_head": 4, "n_layer": 2, "vocab_size": BYTES} if options.small else {"n_layer": options.layers}
    torch.manual_seed(options.seed)
    # tied to the input's, the output layer of random weights would repeat the last token for ever
    return GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False, **size)).eval()


def remote_names(model):
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    return [f"transformer.h.{i}.{part}" for i in range(len(model.transformer.h)) for part in parts]


def generate(step, prompt, count, forced=None, progress=None):
    """Greedy generation with a KV cache, batch of one: step(ids, past) -> (logits of the last position, past). Returns the tokens chosen and the
    logits they were chosen by. forced: tokens that are fed back instead of the chosen ones."""
    chosen, logits = [], []
    last, past = step(prompt[None], None)
    while True:
        logits.append(last)
        chosen.append(last.argmax())
        if progress is not None:
            progress.step()
        if len(chosen) == count:
            return torch.stack(chosen), torch.stack(logits)
        token = chosen[-1] if forced is None else forced[len(chosen) - 1]
        last, past = step(token.reshape(1, 1), past)

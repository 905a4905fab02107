"""A model of Llama's kind, small, with random weights but for its output layer, which is fitted as language.py says."""

import torch
from language import BYTES
from transformers import LlamaConfig, LlamaForCausalLM

NAME = "llama"


def build(options):
    torch.manual_seed(options.seed)
    size = {"hidden_size": 64, "intermediate_size": 160} if options.small else {"hidden_size": 512, "intermediate_size": 1376}
    config = LlamaConfig(
        vocab_size=BYTES,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=2,  # grouped-query attention: k and v are narrower than q
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=None,
        **size,
    )
    return LlamaForCausalLM(config).eval()


GROUPS = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]


def remote_names(model):
    return [f"model.layers.{i}.{part}" for i in range(len(model.model.layers)) for parts in GROUPS for part in parts]

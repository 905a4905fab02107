#!/usr/bin/python3
"""GPT-2, all projections remote: 4 encrypted matrix products per layer and token.

The weights are those of GPT-2 small's shape (12 layers of 768, 124 million), drawn from a seed; only the output layer, which
stays with the client, is fitted, so that its logits are as different as those of a trained model (owner.py says how and why).
Needs transformers: examples/venv.sh installs it. Ends with a table, a line of JSON and a line that says it worked."""

import sys
from pathlib import Path
from statistics import median

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import harness  # noqa: E402


def arguments(parser):
    parser.add_argument("--tokens", type=int, default=100, help="compared, each after the same prefix (default %(default)s)")
    parser.add_argument("--free", type=int, default=50, help="generated freely (default %(default)s)")
    parser.add_argument("--layers", type=int, default=12, help="of 768 features (default %(default)s)")
    parser.add_argument("--small", action="store_true", help="2 layers of 64 features instead")
    parser.add_argument("--bits", type=int, default=0, help="of the weights (default: 0, which lets the compiler choose)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    tokens, free, expected_free = reference["tokens"], results["free"], reference["free"]
    logits, expected = results["logits"], reference["logits"]
    different = (free != expected_free).nonzero()
    keys = ("server_ms", "network_ms", "encrypt_ms", "decrypt_ms", "upload_bytes", "download_bytes")
    steps = results["steps"]
    each = [{key: after[key] - before[key] for key in keys} | {"ms": 1000 * s} for (_, before), (s, after) in zip(steps, steps[1:])]
    each = [e for i, e in enumerate(each) if i + 1 != options.tokens]  # that one is the second prompt
    top = expected.topk(2).values
    return {
        "layers": 2 if options.small else options.layers,
        "tokens": len(tokens),
        "equal_same_prefix": (results["forced"] == tokens).double().mean().item(),
        "free_tokens": len(free),
        "equal_free": (free == expected_free).double().mean().item(),
        "free_equal_until": int(different[0]) if len(different) else len(free),
        "logit_error_rms": harness.relative_rms(logits, expected),
        "logit_error_max": (logits - expected).abs().max().item(),
        "logit_std": expected.std().item(),
        "margin_median": (top[:, 0] - top[:, 1]).median().item(),
        "different_tokens": len(set(tokens.tolist())),
        "prompt_ms": 1000 * steps[0][0],
        **{f"token_{key}": median(e[key] for e in each) for key in (*keys, "ms")},
        "evaluation_key_bytes": steps[-1][1]["evaluation_key_bytes"],
        "fitted": reference["fitted"],
        "free_text": bytes(free.tolist()).decode("ascii", "replace"),
    }


def table(f):
    client = f["token_encrypt_ms"] + f["token_decrypt_ms"]
    rest = f["token_ms"] - client - f["token_network_ms"] - f["token_server_ms"]
    print(f"  GPT-2, {f['layers']} layers, {4 * f['layers']} remote products a token          equal to float32")
    print(f"  {f['tokens']:4d} tokens, each after the same prefix, a text       {f['equal_same_prefix']:8.1%}   ({f['different_tokens']} different tokens)")
    print(f"  {f['free_tokens']:4d} tokens, running freely                           {f['equal_free']:8.1%}   (the first {f['free_equal_until']} are): {f['free_text']!r}")
    print(
        f"  logits: error {f['logit_error_rms']:.2%} rms of their spread, {f['logit_error_max']:.4f} at most; "
        f"the two largest differ by {f['margin_median']:.3f} in the median\n"
    )
    print("  per token        bytes up  bytes down   server ms  network ms  encryption ms  rest of client ms    in all ms")
    print(
        f"                 {f['token_upload_bytes']:10.0f}  {f['token_download_bytes']:10.0f}  {f['token_server_ms']:10.1f}  "
        f"{f['token_network_ms']:10.1f}  {client:13.1f}  {rest:17.1f}  {f['token_ms']:11.1f}"
    )
    print(f"  (medians; the first step, a prompt with the upload of {f['evaluation_key_bytes']:.0f} bytes of keys: {f['prompt_ms']:.0f} ms)")


def check(f):
    if f["equal_same_prefix"] < 0.98:
        return f"only {f['equal_same_prefix']:.1%} of the tokens are those of the float model"
    if f["logit_error_rms"] > 0.05:
        return f"the logits differ by {f['logit_error_rms']:.2%}"


if __name__ == "__main__":
    harness.require_transformers()
    harness.main(__file__, "gpt2", __doc__, arguments, figures, table, check)

"""What the examples with language models share: text, byte by byte, an output layer fitted to it, and greedy generation.

Logits of a model of random weights are nearly uniform: the largest two of 50,257 often differ by less than any 8-bit quantisation
changes them, and to compare tokens would say nothing. So the output layer, which stays with the client, is fitted: ridge regression of the
next byte of a text on the last hidden states. Nothing else is trained; all that is remote is as it was drawn."""

import time
from pathlib import Path

import torch
from harness import Progress, options_of, relative_rms, reports, say, serving, table_of_reports, totals

from hemi_fhe.torch.hybrid_model import HybridFHEModel

PROMPT = 32  # tokens
BYTES = 256  # tokens in use: text is taken byte by byte
FITTED = 2048  # positions of the text


def text():
    return torch.tensor(list((serving.ROOT / "LICENSE").read_bytes()))


def fit_output_layer(model, ids, context=256, ridge=1e-2):
    parts = [model.base_model(part[None]).last_hidden_state[0] for part in ids[:-1].split(context)]
    hidden = torch.cat(parts).double()
    wanted = torch.nn.functional.one_hot(ids[1:], BYTES).double()
    gram = hidden.T @ hidden
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    model.lm_head.weight.zero_()  # rows of tokens that are no bytes are never the largest
    model.lm_head.weight[:BYTES] = torch.linalg.solve(gram, hidden.T @ wanted).T.float()
    return (model.lm_head(hidden.float()).argmax(-1) == ids[1:]).double().mean().item()


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


def steps_of(call, record=None):
    """generate's step, by a model or a HybridFHEModel."""

    def step(ids, past):
        start = time.perf_counter()
        out = call(input_ids=ids, past_key_values=past, use_cache=True)
        if record is not None:
            record.append((time.perf_counter() - start, totals(call.stats())))
        return out.logits[0, -1, :BYTES], out.past_key_values

    return step


@torch.no_grad()
def owner(folder, name, model, names, ridge=1e-2, calibration=128, **options_of_compiler):
    """All that the model's owner does. ridge: the more, the less the output layer amplifies small differences of the hidden states.
    calibration: tokens of the text."""
    folder, options, ids = Path(folder), options_of(folder), text()
    start = time.perf_counter()
    fitted = fit_output_layer(model, ids[: FITTED + 1], ridge=ridge)
    say("owner", f"output layer fitted in {time.perf_counter() - start:.1f} s: {fitted:.0%} of the next bytes are right")
    prompt, follows = ids[1000 : 1000 + PROMPT], ids[1000 + PROMPT :]  # each step of the comparison is fed the same tokens: the text
    tokens, logits = generate(steps_of(model), prompt, options.tokens, follows)
    free, _ = generate(steps_of(model), prompt, options.free)
    torch.save({"prompt": prompt, "follows": follows}, folder / "given.pth")

    hybrid = HybridFHEModel(model, names, model_name=name)
    start = time.perf_counter()
    hybrid.compile_model({"input_ids": ids[None, :calibration]}, n_bits=options.bits or None, **options_of_compiler)
    bits = sorted({module.info["weight_bits"] for module in hybrid.private_q_modules.values()})
    what = f"weights of {' or '.join(map(str, bits))} bits" if any(bits) else "weights not rounded"
    say("owner", f"{len(names)} modules compiled in {time.perf_counter() - start:.1f} s, {what}")
    reference = {"tokens": tokens, "logits": logits, "free": free, "fitted": fitted, "reports": reports(hybrid)}
    torch.save(reference, folder / "reference.pth")
    start = time.perf_counter()
    hybrid.save_and_clear_private_info(folder / "models" / name)
    say("owner", f"saved in {time.perf_counter() - start:.1f} s; no private weight is left in this process")


@torch.no_grad()
def client(url, folder, name, model, names):
    """All that the application does: greedy generation with a KV cache."""
    folder = Path(folder)
    options, given = options_of(folder), torch.load(folder / "given.pth")
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True), strict=False)
    hybrid = HybridFHEModel(model, names, server_remote_address=url, model_name=name)
    hybrid.init_client(prepare={"auto": None, "always": True, "never": False}[options.prepare])
    steps = []  # (seconds, figures summed so far)
    step = steps_of(hybrid, steps)
    forced, logits = generate(step, given["prompt"], options.tokens, given["follows"], Progress("same prefix", options.tokens, "tokens"))
    free, _ = generate(step, given["prompt"], options.free, None, Progress("free", options.free, "tokens"))
    torch.save({"forced": forced, "logits": logits, "free": free, "steps": steps}, folder / "results.pth")


# ---- for run.py


def arguments(parser):
    parser.add_argument("--tokens", type=int, default=100, help="compared, each after the same prefix (default %(default)s)")
    parser.add_argument("--free", type=int, default=50, help="generated freely (default %(default)s)")
    parser.add_argument("--bits", type=int, default=0, help="of the weights (default: 0, which lets the compiler choose)")
    parser.add_argument("--prepare", choices=["auto", "always", "never"], default="auto", help="calls ahead, in the background (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


PER_TOKEN = ("server_ms", "network_ms", "encrypt_ms", "decrypt_ms", "upload_bytes", "download_bytes", "requests", "prepared_rows")


def figures(options, reference, results):
    tokens, free, expected_free = reference["tokens"], results["free"], reference["free"]
    logits, expected = results["logits"], reference["logits"]
    different = (free != expected_free).nonzero()
    steps = results["steps"]
    each = [{key: after[key] - before[key] for key in PER_TOKEN} | {"ms": 1000 * s} for (_, before), (s, after) in zip(steps, steps[1:])]
    each = [e for i, e in enumerate(each) if i + 1 != options.tokens]  # that one is the second prompt
    median = lambda key: torch.tensor([float(e[key]) for e in each]).median().item()  # noqa: E731
    top = expected.topk(2).values
    return {
        "tokens": len(tokens),
        "equal_same_prefix": (results["forced"] == tokens).double().mean().item(),
        "free_tokens": len(free),
        "equal_free": (free == expected_free).double().mean().item(),
        "free_equal_until": int(different[0]) if len(different) else len(free),
        "free_text": bytes(free.tolist()).decode("ascii", "replace"),
        "logit_error_rms": relative_rms(logits, expected),
        "logit_error_max": (logits - expected).abs().max().item(),
        "logit_std": expected.std().item(),
        "margin_median": (top[:, 0] - top[:, 1]).median().item(),
        "different_tokens": len(set(tokens.tolist())),
        "prompt_ms": 1000 * steps[0][0],
        **{f"token_{key}": median(key) for key in (*PER_TOKEN, "ms")},
        "evaluation_key_bytes": steps[-1][1]["evaluation_key_bytes"],
        "fitted": reference["fitted"],
        "reports": reference["reports"],
    }


def table(title, f):
    client = f["token_encrypt_ms"] + f["token_decrypt_ms"]
    rest = f["token_ms"] - client - f["token_network_ms"] - f["token_server_ms"]
    remote = f"{len(f['reports'])} remote block{'s' if len(f['reports']) > 1 else ''}" if f["reports"] else f"{f['products']} remote products a token"
    print(f"  {title}, {remote} in {f['token_requests']:.0f} requests      equal to float32")
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
    if f["reports"]:
        table_of_reports(f["reports"])
    else:
        print(f"  of the requests, {f['token_prepared_rows']:.0f} used what had been prepared before, in the background: that is not in server ms")
    print(f"  (medians; the first step, a prompt with the upload of {f['evaluation_key_bytes']:.0f} bytes of keys: {f['prompt_ms']:.0f} ms)")


def check(f):
    if f["equal_same_prefix"] < 0.98:
        return f"only {f['equal_same_prefix']:.1%} of the tokens are those of the float model"
    if f["logit_error_rms"] > 0.05:
        return f"the logits differ by {f['logit_error_rms']:.2%}"

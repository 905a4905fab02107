#!/usr/bin/python3
"""LoRA: low-rank adapters of a small transformer are trained by the client, while the frozen matrices stay with the server.

Forward products W x and backward products W^T g are both encrypted: the server sees neither activations nor gradients; the client
never has W. The losses must be those of the same training with the float model. Ends with a table, a line of JSON and a line that
says it worked."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "python")]

import harness  # noqa: E402
import torch  # noqa: E402


def arguments(parser):
    parser.add_argument("--steps", type=int, default=24, help="of fine-tuning (default %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="pieces of text of 32 bytes in a step (default %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="(default %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="features (default %(default)s)")
    parser.add_argument("--rank", type=int, default=4, help="of the adapters (default %(default)s)")
    parser.add_argument("--pretrain", type=int, default=200, help="steps of the owner's training (default %(default)s)")
    parser.add_argument("--bits", type=int, default=8, help="of the weights; 0 lets the compiler choose (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def figures(options, reference, results):
    losses, expected = torch.tensor(results["losses"]), torch.tensor(reference["losses"])
    moved = lambda adapters: torch.cat([(p - reference["begin"][n]).flatten() for n, p in sorted(adapters.items())])  # noqa: E731
    got, wanted = moved(results["adapters"]), moved(reference["adapters"])
    forward = {k: v for k, v in results["stats"].items()}
    backward = [s["backward"] for s in forward.values() if "backward" in s]
    sums = lambda parts, key: sum(part[key] for part in parts) / options.steps  # noqa: E731
    figures = {
        "steps": options.steps,
        "losses_float": reference["losses"],
        "losses_remote": results["losses"],
        "loss_first": losses[:4].mean().item(),  # of the first time through the four batches, and of the last
        "loss_last": losses[-4:].mean().item(),
        "loss_difference_max": (losses - expected).abs().max().item(),
        "adapters_difference": ((got - wanted).norm() / wanted.norm()).item(),
        "seconds_per_step": results["seconds"] / options.steps,
    }
    for name, parts in (("forward", list(forward.values())), ("backward", backward)):
        figures[name] = {key: sums(parts, key) for key in ("calls", "requests", "rows", "upload_bytes", "download_bytes", "server_ms")}
    return figures


def table(f):
    print("  step        loss, float    loss, remote")
    for i in sorted({*range(0, f["steps"], max(1, f["steps"] // 5)), f["steps"] - 1}):
        print(f"  {i:4d}  {f['losses_float'][i]:17.4f}  {f['losses_remote'][i]:14.4f}")
    print(f"  mean of the four batches: {f['loss_first']:.3f} at first, {f['loss_last']:.3f} at last")
    print(f"  largest difference of the losses {f['loss_difference_max']:.5f}; of what the adapters learnt {f['adapters_difference']:.2%}\n")
    print("  per step       products  requests      rows       bytes up     bytes down   server ms")
    for name in ("forward", "backward"):
        s = f[name]
        print(
            f"  {name:<12}{s['calls']:10.0f}{s['requests']:10.0f}{s['rows']:10.0f}{s['upload_bytes']:15.0f}{s['download_bytes']:15.0f}{s['server_ms']:12.1f}"
        )
    print(f"  {f['seconds_per_step']:.2f} s a step")


def check(f):
    mean = lambda losses: sum(losses) / len(losses)  # noqa: E731
    fall, expected = f["loss_first"] - f["loss_last"], mean(f["losses_float"][:4]) - mean(f["losses_float"][-4:])
    if not fall > 0.9 * expected > 0:
        return f"the loss fell by {fall:.3f} only, that of the float model by {expected:.3f}"
    if f["loss_difference_max"] > 0.02 * f["loss_first"]:
        return f"the losses differ by {f['loss_difference_max']:.4f} from those of the float model"


if __name__ == "__main__":
    harness.main(__file__, "lora", __doc__, arguments, figures, table, check)

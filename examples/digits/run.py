#!/usr/bin/python3
"""Trains a network on handwritten digits, serves all its Linear layers with hemi-server, and classifies the whole test set
from another process, over HTTP, on encrypted data. Ends with a table, a line of JSON and a line that says it worked."""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "python")]

import serving  # noqa: E402
import torch  # noqa: E402
from model import NAME, data  # noqa: E402


def run(folder):
    serving.python(HERE / "owner.py", folder)
    client = folder / "client"
    client.mkdir()
    shutil.copy(folder / "models" / NAME / "model.pth", client)  # all that the application gets from the owner
    with serving.hemi_server(folder / "models", "--quiet") as server:
        print(f"server: hemi-server at {server.url}, process {server.process.pid}; client: another process", flush=True)
        serving.python(HERE / "client.py", server.url, client)
    return torch.load(folder / "reference.pth"), torch.load(client / "results.pth")


def figures(reference, results):
    labels = data()[3]
    layers = results["layers"].values()
    total = lambda key: sum(layer[key] for layer in layers)  # noqa: E731
    accuracy = lambda logits: (logits.argmax(1) == labels).double().mean().item()  # noqa: E731
    return {
        "images": len(labels),
        "accuracy_float": accuracy(reference["float"]),
        "accuracy_simulated": accuracy(reference["simulated"]),
        "accuracy_remote": accuracy(results["logits"]),
        "logit_error_max": (results["logits"] - reference["float"]).abs().max().item(),
        "logit_max": reference["float"].abs().max().item(),
        "calls_per_image": len(results["layers"]),
        "upload_bytes_per_image": round(total("upload_bytes")),
        "download_bytes_per_image": round(total("download_bytes")),
        **results["image"],
        "per_call": {name: {key: round(value, 3) for key, value in layer.items()} for name, layer in results["layers"].items()},
        "security_bits": reference["security_bits"],
    }


def print_table(f, layers):
    print(f"\n  {f['images']} test images        float  simulated     remote")
    print(f"  accuracy            {f['accuracy_float']:9.2%}  {f['accuracy_simulated']:9.2%}  {f['accuracy_remote']:9.2%}")
    print(f"  largest error of a logit: {f['logit_error_max']:.4f} (largest logit {f['logit_max']:.1f})\n")
    print("  per call          bytes up  bytes down   client ms  network ms   server ms")
    for name, s in layers.items():
        client = s["encrypt_ms"] + s["decrypt_ms"]
        print(
            f"  {name:<16}{s['upload_bytes']:10.0f}  {s['download_bytes']:10.0f}  {client:10.3f}  {s['network_ms']:10.3f}  {s['server_ms']:10.3f}"
        )
    print(
        f"  {'image (3 calls)':<16}{f['upload_bytes_per_image']:10d}  {f['download_bytes_per_image']:10d}  {f['client_ms']:10.3f}"
        f"  {f['network_ms']:10.3f}  {f['server_ms']:10.3f}   in all {f['ms_per_image']:.2f} ms"
    )
    print("  (medians; client: encryption and decryption, in the last line everything else in the client's process too)")
    print(f"  evaluation keys, sent once: {f['evaluation_key_bytes']} bytes; security: {f['security_bits']:.0f} bits\n")


def main():
    serving.stop_cleanly_on_sigterm()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hemi-digits-") as folder:
        reference, results = run(Path(folder))
    f = figures(reference, results)
    print_table(f, results["layers"])
    f["seconds"] = time.perf_counter() - start
    print(json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in f.items()}))
    if f["accuracy_remote"] < f["accuracy_float"] - 0.01 or f["logit_error_max"] > 0.05 * f["logit_max"]:
        sys.exit("digits: the encrypted results differ too much from those of the float model")
    print(f"digits: it worked: {f['images']} images classified on a server that saw only ciphertexts")


if __name__ == "__main__":
    main()

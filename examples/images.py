"""What the examples with images share."""

import time

import torch
from harness import Progress, relative_rms, totals
from torch.nn.functional import cross_entropy


def digits():
    """scikit-learn's images of digits, N x 1 x 8 x 8: training images, training labels, test images, test labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    split = train_test_split(data.images / 16, data.target, test_size=0.2, random_state=0, stratify=data.target)
    x_train, x_test, y_train, y_test = split
    as_x = lambda a: torch.tensor(a, dtype=torch.float32)[:, None]  # noqa: E731
    return as_x(x_train), torch.tensor(y_train), as_x(x_test), torch.tensor(y_test)


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).double().mean().item()


def train(model, x, y, epochs, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def classify(hybrid, x, batch):
    """Logits of all images, and the figures of everything after the first image (with which the keys go up)."""
    first = hybrid(x[:1])
    before = hybrid.stats()
    keys = totals(before)["evaluation_key_bytes"]
    progress, logits, start = Progress("images", len(x), "images"), [first], time.perf_counter()
    progress.step(1)
    for part in x[1:].split(batch):
        logits.append(hybrid(part))
        progress.step(len(part))
    seconds, after = time.perf_counter() - start, hybrid.stats()
    figures = ("requests", "rows", "upload_bytes", "download_bytes", "server_ms", "network_ms", "encrypt_ms", "decrypt_ms")
    layers = {name: {key: after[name][key] - before[name][key] for key in figures} for name in after}
    return {"logits": torch.cat(logits), "layers": layers, "seconds": seconds, "images": len(x) - 1, "evaluation_key_bytes": keys}


def figures(reference, results):
    logits, expected, images = results["logits"], reference["logits"], results["images"]
    per_image = lambda key: sum(layer[key] for layer in results["layers"].values()) / images  # noqa: E731
    return {
        "images": len(logits),
        "same_class": (logits.argmax(1) == expected.argmax(1)).double().mean().item(),
        "logit_error_rms": relative_rms(logits, expected),
        "logit_error_max": (logits - expected).abs().max().item(),
        "logit_max": expected.abs().max().item(),
        "ms_per_image": 1000 * results["seconds"] / images,
        **{f"{key}_per_image": per_image(key) for key in ("upload_bytes", "download_bytes", "server_ms", "network_ms", "encrypt_ms", "decrypt_ms")},
        "layers": {name: {key: value / images for key, value in layer.items()} for name, layer in results["layers"].items()},
        "evaluation_key_bytes": results["evaluation_key_bytes"],
    }


def table(f):
    print("  per image                  bytes up  bytes down   server ms  encryption ms")
    for name, layer in f["layers"].items():
        client = layer["encrypt_ms"] + layer["decrypt_ms"]
        print(f"  {name:<24}{layer['upload_bytes']:11.0f} {layer['download_bytes']:11.0f} {layer['server_ms']:11.2f} {client:14.2f}")
    client = f["encrypt_ms_per_image"] + f["decrypt_ms_per_image"]
    print(
        f"  {'all':<24}{f['upload_bytes_per_image']:11.0f} {f['download_bytes_per_image']:11.0f} {f['server_ms_per_image']:11.2f} {client:14.2f}"
        f"   in all {f['ms_per_image']:.1f} ms"
    )
    print(f"  evaluation keys, sent once: {f['evaluation_key_bytes']:.0f} bytes")

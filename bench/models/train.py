#!/usr/bin/env python3
"""Trains the networks that `hemi bench circuit` measures on scikit-learn's digits (1,797 images of 8 x 8, in [0, 1]), and writes them beside this file as
ONNX, with the images that calibrate them: they are in the repository because trained networks take other degrees than random ones. Takes a minute.

    bench/models/train.py"""

import pathlib

import numpy
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = pathlib.Path(__file__).parent
TRAINED, CALIBRATION = 1300, 400  # images; calibration ones are the first of those trained on
EPOCHS, BATCH = 60, 64

NETWORKS = {
    "mlp-64-128-64-10": lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    "cnn-1": lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
    "cnn-2": lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)),
}


def train(network, x, y):
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimiser.step()
    return network.eval()


def main():
    digits = load_digits()
    order = numpy.random.RandomState(0).permutation(len(digits.images))
    images = torch.tensor(digits.images[order] / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(digits.target[order])
    numpy.save(HERE / "digits.npy", images[:CALIBRATION].numpy())
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network, x = make(), images if name.startswith("cnn") else images.flatten(1)
        train(network, x[:TRAINED], labels[:TRAINED])
        accuracy = (network(x[TRAINED:]).argmax(1) == labels[TRAINED:]).float().mean().item()
        torch.onnx.export(network, x[:1], HERE / f"{name}.onnx", opset_version=14)
        print(f"{name}: {100 * accuracy:.1f} % of {len(images) - TRAINED} images that it was not trained on")


if __name__ == "__main__":
    main()

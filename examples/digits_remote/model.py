"""What owner and application both know: three classifiers of 8 x 8 images of digits, each wholly remote."""

import images
import torch
from torch import nn

NAME = "digits_remote"
REMOTE = ["net"]  # nothing is left for the client but the arg-max
torch.set_num_threads(1)  # small operations: a second thread costs more than it brings


def mlp():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn_1():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))


def cnn_2():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8 * 8, 10)
    )


NETS = {"mlp": mlp, "cnn-1": cnn_1, "cnn-2": cnn_2}
ROWS = {"mlp": 16, "cnn-1": 16, "cnn-2": 8}  # images in a ciphertext: many cost little more than one


class Classifier(nn.Module):
    """The application has it without `net`."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def data(options):
    """Training images, training labels, test images, test labels: rows of 64 numbers for the MLP, 1 x 8 x 8 for the others."""
    x_train, y_train, x_test, y_test = images.digits()
    if options.model == "mlp":
        x_train, x_test = x_train.flatten(1), x_test.flatten(1)
    return x_train, y_train, x_test[: options.images], y_test[: options.images]

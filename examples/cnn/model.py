"""What owner and application both know: a small network for 8 x 8 images of digits, and the data."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

NAME = "cnn"
REMOTE = ["conv1", "conv2", "conv3"]
torch.set_num_threads(1)  # small operations: a second thread costs more than it brings


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Linear(32 * 2 * 2, 10)  # stays with the client

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv3(x)), 2)
        return self.last(x.flatten(1))


def data():
    """Training images, training labels, test images, test labels."""
    digits = load_digits()
    split = train_test_split(digits.images / 16, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    x_train, x_test, y_train, y_test = split
    as_x = lambda a: torch.tensor(a, dtype=torch.float32)[:, None]  # noqa: E731
    return as_x(x_train), torch.tensor(y_train), as_x(x_test), torch.tensor(y_test)

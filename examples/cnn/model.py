"""What owner and application both know: a small network for 8 x 8 images of digits."""

import torch
from torch import nn

NAME = "cnn"
torch.set_num_threads(1)  # small operations: a second thread costs more than it brings


class CNN(nn.Module):
    """All convolutions are remote. Activations, pooling and the last layer are the client's."""

    REMOTE = ["conv1", "conv2", "conv3"]

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv3(x)), 2)
        return self.last(x.flatten(1))


class BlockCNN(nn.Module):
    """One module is remote: convolution, normalisation, activation, convolution. What surrounds it is the client's, with a pooling that no
    polynomial could do."""

    REMOTE = ["block"]

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)
        )
        self.last = nn.Linear(16 * 2 * 2, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.max_pool2d(torch.relu(self.block(x)), 2)
        return self.last(x.flatten(1))


def build(options):
    return BlockCNN() if options.block else CNN()

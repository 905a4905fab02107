"""A network of ResNet-18's shape (He and others, 2015) for 3 x 64 x 64 images, with random weights. What is remote are
convolutions with the batch normalisation after them, which the compiler folds into one product; ReLU, pooling, sums and the last layer are
the client's."""

import torch
from torch import nn

NAME = "resnet18"


def convolution(inputs, outputs, size, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = convolution(inputs, outputs, 3, stride), convolution(outputs, outputs, 3, 1)
        self.shortcut = convolution(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x):
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet18(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = convolution(3, width, 7, 2)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(Block(widths[i], widths[i + 1], 1 if i == 0 else 2), Block(widths[i + 1], widths[i + 1], 1)) for i in range(4)
        )
        self.last = nn.Linear(8 * width, 1000)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
        return self.last(x.mean((2, 3)))


def build(options):
    torch.manual_seed(options.seed)
    return ResNet18(options.width)


def remote_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv2d)]


def data(options):
    return torch.randn(options.images, 3, 64, 64, generator=torch.Generator().manual_seed(options.seed + 1))

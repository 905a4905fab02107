"""What owner and application both know: classifiers of 8 x 8 images of digits, for quantisation-aware training with Brevitas. The
application has no part of the network, and needs no Brevitas."""

import torch
from torch import nn

NAME = "brevitas"
REMOTE = ["net"]
torch.set_num_threads(1)  # small operations: a second thread costs more than it brings


class Classifier(nn.Module):
    """The application has it without `net`."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def mlp(weight_bits, bits):
    import brevitas.nn as qnn

    linear = lambda *sizes: qnn.QuantLinear(*sizes, bias=True, weight_bit_width=weight_bits)  # noqa: E731
    relu = lambda: qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)  # noqa: E731
    pixels = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
    return nn.Sequential(nn.Flatten(), pixels, linear(64, 64), relu(), linear(64, 32), relu(), linear(32, 10))


def cnn(weight_bits, bits):
    import brevitas.nn as qnn

    conv = lambda *sizes: qnn.QuantConv2d(*sizes, 3, padding=1, bias=True, weight_bit_width=weight_bits)  # noqa: E731
    relu = lambda: qnn.QuantReLU(bit_width=bits, return_quant_tensor=True)  # noqa: E731
    pixels = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
    last = qnn.QuantLinear(8 * 8 * 8, 10, bias=True, weight_bit_width=weight_bits)
    return nn.Sequential(pixels, conv(1, 8), relu(), conv(8, 8), relu(), nn.Flatten(), last)


NETS = {"mlp": mlp, "cnn": cnn}
TOLERANCE = {3: 0.08, 4: 0.05}  # by the bits of activations. Less is hardly possible: polynomials do not follow the rounding
ROWS = 16  # images in a ciphertext: many cost little more than one

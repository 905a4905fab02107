"""Gradients through remote modules: y = W x + b has the gradient W^T g with respect to x, a second encrypted product. W and b
themselves are frozen: they have no gradient here."""

import torch
from torch.autograd.function import once_differentiable


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, product, transposed):
        ctx.transposed = transposed
        return product()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return ctx.transposed(gradient), None, None


def differentiable(x, product, transposed):
    """product(), as a function of x whose gradient is transposed(gradient)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Product.apply(x, product, transposed)
    return product()

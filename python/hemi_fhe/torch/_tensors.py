"""Tensors as the C library wants them: rows or samples of float32, without a copy where they are that already. What a module takes
and gives is the number of features of a row, or the shape of a sample."""

import math

import torch

from ..errors import HemiShapeError, HemiUnsupportedError


def run_rows(x, takes, gives, name, function):
    """Calls function(address of x, rows, address of y) and gives y the rank, dtype and device of x."""
    return run_rows_many(x, takes, [gives], name, lambda a, rows, ys: function(a, rows, ys[0]))[0]


def run_rows_many(x, takes, gives, name, function):
    """Calls function(address of x, rows, [addresses of y]) for results of several modules."""
    flat = flat_rows(x, takes, name)
    before = x.shape[:-1] if isinstance(takes, int) else x.shape[: x.dim() - len(takes)]
    results = [torch.empty(before + (torch.Size((g,)) if isinstance(g, int) else torch.Size(g)), dtype=torch.float32) for g in gives]
    rows = flat.numel() // (takes if isinstance(takes, int) else math.prod(takes))
    if rows:
        function(flat.data_ptr(), rows, [y.data_ptr() for y in results])
    dtype = x.dtype if x.is_floating_point() else torch.float32
    return [y.to(device=x.device, dtype=dtype) for y in results]


def flat_rows(x, takes, name):
    """x as contiguous float32 in this machine's memory; without a copy where it is that already."""
    if not isinstance(x, torch.Tensor):
        raise HemiUnsupportedError(f"{name} takes one tensor, not {type(x).__name__}")
    if isinstance(takes, int):
        fits, what = x.dim() > 0 and x.shape[-1] == takes, f"{takes} features in the last dimension of its input, whatever the dimensions before it"
    else:
        fits = tuple(x.shape[-len(takes) :]) == takes and x.dim() <= len(takes) + 1
        what = f"samples of the shape it was compiled for, {' x '.join(map(str, ('N',) + takes))}"
    if not fits:
        raise HemiShapeError(f"{name} takes {what}; got shape {tuple(x.shape)}")
    if x.is_complex():
        raise HemiUnsupportedError(f"{name} takes real numbers, not {x.dtype}")
    return x.detach().to(device="cpu", dtype=torch.float32).contiguous()


def version_of(tensor):
    """Grows with every change in place; None for tensors that do not count (made in inference mode)."""
    try:
        return tensor._version
    except RuntimeError:
        return None


def storage_address(tensor):
    """Where the memory behind a tensor begins: the same for all views of it. 0 if it has none."""
    try:
        storage = tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage()
        return storage.data_ptr()
    except (RuntimeError, NotImplementedError):  # meta, sparse
        return 0


def tensors_of(module):
    """(name, tensor) for everything a module and its sub-modules hold: parameters, buffers, plain attributes."""
    yield from module.named_parameters()
    yield from module.named_buffers()
    for prefix, sub in module.named_modules():
        for name, value in vars(sub).items():
            if isinstance(value, torch.Tensor):
                yield (f"{prefix}.{name}" if prefix else name), value


def wipe(module):
    """Overwrites what a module holds, gradients too, and lets go of it."""
    with torch.no_grad():
        for _, tensor in list(tensors_of(module)):
            for t in (tensor, tensor.grad if tensor.is_leaf else None):
                if t is not None and not t.is_meta:
                    t.detach().zero_()
            if tensor.is_leaf:
                tensor.grad = None
    for sub in module.modules():
        for name in [n for n, v in vars(sub).items() if isinstance(v, torch.Tensor)]:
            setattr(sub, name, None)

"""Tensors as the C library wants them: rows of float32, without a copy where they are that already."""

import torch

from ..errors import HemiShapeError, HemiUnsupportedError


def run_rows(x, module, name, function):
    """Calls function(address of x, rows, address of y) for a compiled module that takes x; y has the dtype and device of x."""
    return run_rows_many(x, [module], name, lambda a, rows, ys: function(a, rows, ys[0]))[0]


def run_rows_many(x, modules, name, function):
    """Calls function(address of x, rows, [addresses of y]) for modules that take the same x."""
    check_tensor(x, name)
    fits = [module.fits(x.shape) for module in modules]
    flat = flat_rows(x)
    results = [torch.empty(shape, dtype=torch.float32) for _, shape in fits]
    rows = fits[0][0]
    if rows:
        function(flat.data_ptr(), rows, [y.data_ptr() for y in results])
    dtype = x.dtype if x.is_floating_point() else torch.float32
    return [y.to(device=x.device, dtype=dtype) for y in results]


def choose(modules, x, name):
    """Which of the modules, compiled for different shapes, takes x."""
    check_tensor(x, name)
    for module in modules:
        if module.fits(x.shape) is not None:
            return module
    takes = modules[0].takes()
    if len(modules) > 1:
        takes = f"samples of the shapes it was compiled for, {' or '.join(module.sample() for module in modules)}"
    raise HemiShapeError(f"{name} takes {takes}; got shape {tuple(x.shape)}")


def check_tensor(x, name):
    if not isinstance(x, torch.Tensor):
        raise HemiUnsupportedError(f"{name} takes one tensor, not {type(x).__name__}")
    if x.is_complex():
        raise HemiUnsupportedError(f"{name} takes real numbers, not {x.dtype}")


def flat_rows(x):
    """x as contiguous float32 in this machine's memory; without a copy where it is that already."""
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

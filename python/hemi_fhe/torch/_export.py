"""From an nn.Module to ONNX bytes, with the exporter that every torch since 1.13 has. The onnx package is not needed."""

import contextlib
import copy
import inspect
import io
import sys
import warnings

import torch
import torch.onnx.utils  # loads the exporter, so that it can be looked up
from torch.nn.modules.conv import _ConvNd

from ..errors import HemiUnsupportedError
from . import _tensors


@contextlib.contextmanager
def _without_onnx_package():
    """torch 2.x imports onnx at the end of an export, to look for functions written with onnxscript. There are none here,
    so that step is left out where the package is missing."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        pass
    else:
        yield
        return
    patched = []
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.onnx") and name.endswith("onnx_proto_utils") and hasattr(module, "_add_onnxscript_fn"):
            patched.append((module, module._add_onnxscript_fn))
            module._add_onnxscript_fn = lambda model_bytes, custom_opsets: model_bytes
    try:
        yield
    finally:
        for module, function in patched:
            module._add_onnxscript_fn = function


def to_onnx(module, shape):
    """A writable buffer (memoryview) with the ONNX form of `module` for inputs of this shape, a batch of 1. wipe() it after use."""
    if all(t.dtype is torch.float32 and t.device.type == "cpu" for _, t in _tensors.tensors_of(module)):
        return _export(module, shape)
    twin = copy.deepcopy(module).to("cpu", torch.float32)
    try:
        return _export(twin, shape)
    finally:
        _tensors.wipe(twin)


def _export(module, shape):
    options = {"input_names": ["input"], "output_names": ["output"], "do_constant_folding": True}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    file = io.BytesIO()
    modes = [(m, m.training) for m in module.modules()]
    # padding="same" has no ONNX form in older exporters, but zeros put around first have
    same = [m for m in module.modules() if isinstance(m, _ConvNd) and isinstance(m.padding, str) and m.padding_mode == "zeros"]
    try:
        module.eval()
        for convolution in same:
            convolution.padding_mode = "constant"
        with torch.no_grad(), warnings.catch_warnings(), _without_onnx_package():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (torch.zeros(shape),), file, **options)
    except MemoryError:
        raise
    except Exception as error:
        raise HemiUnsupportedError(f"torch cannot export {type(module).__name__} to ONNX: {error}") from error
    finally:
        for convolution in same:
            convolution.padding_mode = "zeros"
        for sub, training in modes:
            sub.training = training
    return file.getbuffer()


def wipe(buffer):
    """Overwrites a buffer with zeros."""
    step = bytes(1 << 16)
    for start in range(0, len(buffer), len(step)):
        end = min(start + len(step), len(buffer))
        buffer[start:end] = step[: end - start]
    buffer.release()

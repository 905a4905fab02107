"""From an nn.Module to ONNX bytes, with the exporter that every torch since 1.13 has. The onnx package is not needed."""

import contextlib
import inspect
import io
import sys
import warnings

import torch

from ..errors import HemiUnsupportedError


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


def to_onnx(module, inputs):
    """A writable buffer (memoryview) with the ONNX form of `module` for rows of `inputs` features. wipe() it after use."""
    try:
        parameter = next(module.parameters())
        like = {"dtype": parameter.dtype if parameter.is_floating_point() else torch.float32, "device": parameter.device}
    except StopIteration:
        like = {}
    options = {"input_names": ["input"], "output_names": ["output"], "do_constant_folding": True}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    training = module.training
    file = io.BytesIO()
    try:
        module.eval()
        import torch.onnx.utils  # noqa: F401  (loads the exporter, so that it can be looked up)

        with torch.no_grad(), warnings.catch_warnings(), _without_onnx_package():
            warnings.simplefilter("ignore")
            # two dimensions: a Linear becomes one Gemm node
            torch.onnx.export(module, (torch.zeros(1, inputs, **like),), file, **options)
    except Exception as error:
        if isinstance(error, (MemoryError, KeyboardInterrupt)):
            raise
        raise HemiUnsupportedError(f"torch cannot export {type(module).__name__} to ONNX: {error}") from error
    finally:
        module.train(training)
    return file.getbuffer()


def wipe(buffer):
    """Overwrites a buffer with zeros."""
    step = bytes(1 << 16)
    for start in range(0, len(buffer), len(step)):
        end = min(start + len(step), len(buffer))
        buffer[start:end] = step[: end - start]
    buffer.release()

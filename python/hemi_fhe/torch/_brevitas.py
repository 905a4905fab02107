"""Modules that were trained with Brevitas: quantisers are a part of them, and of their ONNX form."""

import copy
import inspect
import warnings

import torch

from ..errors import HemiUnsupportedError
from . import _tensors

NEEDED = "brevitas==0.10.2, onnx and onnxoptimizer (pip install brevitas==0.10.2 onnx onnxoptimizer)"


def has_quantisers(module):
    """Whether parts of a module are Brevitas', which need not be installed for that question."""
    return any(c.__module__.startswith("brevitas.") for m in module.modules() for c in type(m).__mro__)


def to_qonnx(module, shape):
    """A writable buffer with the QONNX form of `module` for inputs of this shape."""
    try:
        import onnxoptimizer  # noqa: F401
        from brevitas.export import export_qonnx
    except ImportError as error:
        raise ImportError(f"a module with Brevitas' quantisers is exported by Brevitas itself: it needs {NEEDED}: {error}") from error
    options = {"input_names": ["input"], "output_names": ["output"]}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    twin = copy.deepcopy(module).to("cpu", torch.float32).eval()  # Brevitas leaves weights behind in what it exports
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = export_qonnx(twin, args=torch.zeros(shape), **options)
    except MemoryError:
        raise
    except Exception as error:
        raise HemiUnsupportedError(f"Brevitas cannot export {type(module).__name__} to ONNX: {error}") from error
    finally:
        _tensors.wipe(twin)
    return memoryview(bytearray(model.SerializeToString()))

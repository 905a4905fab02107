"""Hemi: runs chosen parts of a PyTorch model on a server, on encrypted data.

    hemi_fhe.torch.hybrid_model    HybridFHEModel and what belongs to it
    hemi_fhe.torch.compile         compile_torch_model, compile_onnx_model, compile_brevitas_qat_model
    hemi_fhe.deployment            FHEModelDev, FHEModelServer, FHEModelClient, HTTPServer
    hemi_fhe.common.utils          HybridFHEMode
"""

from .errors import (
    HemiAccuracyWarning,
    HemiArgumentError,
    HemiBusyError,
    HemiConflictError,
    HemiConnectionError,
    HemiError,
    HemiFormatError,
    HemiInternalError,
    HemiIOError,
    HemiKeyError,
    HemiLimitError,
    HemiMemoryError,
    HemiNotFoundError,
    HemiParamsError,
    HemiRangeWarning,
    HemiRemoteError,
    HemiShapeError,
    HemiStateError,
    HemiTooLargeError,
    HemiUnsupportedError,
    HemiVersionError,
)

__version__ = "0.1.0"
__all__ = [name for name in dir() if name.startswith("Hemi")]

"""Compiled modules as files: made by the owner, run by a server, called by a client."""

from .fhe_client_server import (
    DeploymentMode,
    FHEModelClient,
    FHEModelDev,
    FHEModelServer,
    HTTPServer,
    HybridFHEModelServer,
    tuple_to_underscore_str,
    underscore_str_to_tuple,
)

__all__ = [
    "DeploymentMode",
    "FHEModelClient",
    "FHEModelDev",
    "FHEModelServer",
    "HTTPServer",
    "HybridFHEModelServer",
    "tuple_to_underscore_str",
    "underscore_str_to_tuple",
]

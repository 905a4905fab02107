"""The three parts of a deployment, for one compiled module each, and the server of many. None of this needs torch."""

import collections
import enum
import hashlib
import os
import re
import threading
from pathlib import Path

from .. import _native
from .._native import HTTPServer  # noqa: F401  (exported)
from ..errors import HemiArgumentError, HemiKeyError, HemiNotFoundError, HemiShapeError, HemiStateError

# expanded evaluation keys that a FHEModelServer keeps, those used last: so many, and so many bytes if there is more than one
KEYS_HELD, KEYS_BYTES_HELD = 16, 2 << 30
PENDING_HELD = 1024  # requests of a FHEModelClient whose replies have not been read


class DeploymentMode(enum.Enum):
    INFERENCE = "inference"


def tuple_to_underscore_str(shape):
    """(1, 10) or torch.Size([1, 10]) -> "po_1_10_pc": the name of a shape in folders and routes."""
    return "_".join(["po", *(str(int(n)) for n in shape), "pc"])


def underscore_str_to_tuple(text):
    """The inverse of tuple_to_underscore_str."""
    match = re.fullmatch(r"po((?:_\d+)*)_pc", text)
    if match is None:
        raise ValueError(f"{text!r} is not the name of a shape; 'po_1_10_pc' is")
    return tuple(int(n) for n in match.group(1).split("_")[1:])


class FHEModelDev:
    """The owner's part: writes a compiled module to a folder."""

    def __init__(self, path_dir, model):
        self.path_dir = Path(path_dir)
        self.model = getattr(model, "private_q_module", model)  # of a RemoteModule: what it was compiled to
        if self.model is None:
            raise HemiStateError("the module is not compiled: call compile_model(...) first")
        if not hasattr(self.model, "save"):
            raise TypeError(f"model is a compiled module, not {type(model).__name__}")

    def save(self, mode=DeploymentMode.INFERENCE, via_mlir=True):
        """Writes client.zip and server.zip to path_dir. Safe to repeat."""
        if getattr(mode, "value", mode) != "inference":
            raise HemiArgumentError(f"compiled modules are saved for inference, not for {getattr(mode, 'value', mode)!r}")
        self.model.save(self.path_dir)


class FHEModelServer:
    """The server's part: runs one compiled module on requests. May be used from several threads."""

    def __init__(self, path_dir, threads=0):
        self.path_dir, self.threads = Path(path_dir), threads
        self._keys, self._lock = collections.OrderedDict(), threading.Lock()
        self.load()

    def load(self):
        """Reads path_dir (a folder with server.zip, or with one sub-folder that has it) and prepares the module."""
        module = _native.Module.open(self.path_dir, with_weights=True)
        self.info = module.info()
        self._evaluator = _native.Evaluator(module, self.threads)

    def run(self, serialized_encrypted_quantized_data, serialized_evaluation_keys):
        """From the bytes of a request and of the client's evaluation keys to the bytes of the reply."""
        keys = self._expanded(bytes(serialized_evaluation_keys))
        return self._evaluator.run(serialized_encrypted_quantized_data, keys, self.threads)

    def _expanded(self, data):
        digest = _digest(data)
        with self._lock:
            if digest in self._keys:
                self._keys.move_to_end(digest)
                return self._keys[digest]
        keys = _native.ServerKeys(data)
        with self._lock:
            self._keys[digest] = keys
            while len(self._keys) > KEYS_HELD or (len(self._keys) > 1 and sum(k.memory for k in self._keys.values()) > KEYS_BYTES_HELD):
                self._keys.popitem(last=False)
        return keys


class FHEModelClient:
    """The client's part: encrypts inputs of one compiled module and decrypts its results."""

    def __init__(self, path_dir, key_dir=None, passphrase=None):
        self.path_dir, self.key_dir = Path(path_dir), key_dir
        self._keys = _native.Keys(key_dir, passphrase)
        self._pending, self._lock = collections.OrderedDict(), threading.Lock()
        self.load()

    def load(self):
        """Reads path_dir (a folder with client.zip, or with one sub-folder that has it)."""
        self._module = _native.Module.open(self.path_dir, with_weights=False)
        self.info = self._module.info()

    def generate_private_and_evaluation_keys(self, force=False):
        """Makes the secret key now; force: a new one even if there is one."""
        self._keys.generate(self._module, force)

    def get_serialized_evaluation_keys(self):
        """The evaluation keys, for the server."""
        return self._keys.evaluation([self._module])

    def quantize_encrypt_serialize(self, *x):
        """The request for one input: array, tensor or nested list, with the features in its last dimension, or samples."""
        import numpy

        if len(x) != 1:
            raise HemiArgumentError(f"a compiled module takes one input; got {len(x)}")
        x = x[0].detach().cpu() if hasattr(x[0], "detach") else x[0]
        x = numpy.ascontiguousarray(numpy.asarray(x), dtype=numpy.float32)
        fits = self._module.fits(x.shape)
        if fits is None or x.size == 0:
            raise HemiShapeError(f"the module takes {self._module.takes()}, and at least one row; got shape {x.shape}")
        pending = _native.Pending(self._module, self._keys, x.ctypes.data, fits[0])
        with self._lock:
            self._pending[_digest(pending.request)] = pending, fits[1]
            while len(self._pending) > PENDING_HELD:
                self._pending.popitem(last=False)
        return pending.request

    def deserialize_decrypt_dequantize(self, *serialized_encrypted_quantized_result, request=None):
        """The result (float32) from a reply. Replies are read in the order in which the requests were made; give `request`
        (its bytes) for another order, as with several threads."""
        results = tuple(self._read(reply, request) for reply in serialized_encrypted_quantized_result)
        return results[0] if len(results) == 1 else results

    # there is no integer stage between: decoding gives floats at once
    deserialize_decrypt = deserialize_decrypt_dequantize

    def _read(self, reply, request):
        import numpy

        with self._lock:
            if not self._pending:
                raise HemiStateError("there is no request whose reply could be read: each reply is read once")
            key = next(iter(self._pending)) if request is None else _digest(request)
            if key not in self._pending:
                raise HemiStateError("this client did not make that request, or has read the reply to it")
            pending, shape = self._pending[key]
        y = numpy.empty(shape, dtype=numpy.float32)
        out_of_range = pending.decrypt(reply, y.ctypes.data)
        _native.warn_out_of_range(f"the module of {self.path_dir}", self._module, out_of_range, pending.rows)
        with self._lock:
            self._pending.pop(key, None)
        return y

    def __reduce_ex__(self, protocol):
        raise TypeError("a client can be neither pickled nor copied: it holds secret keys")


def _digest(data):
    return hashlib.sha256(data).digest()


class HybridFHEModelServer:
    """Serves the compiled modules below model_dir (MODEL/MODULE/SHAPE) to an application's own web server: bytes in,
    bytes out. `hemi-server`, or HTTPServer, does all of this by itself.

    Names and key ids may come from the network: they are looked up, never joined to a path unseen."""

    def __init__(self, key_path, model_dir, logger=None, circuits_held=64):
        self.key_path, self.model_dir, self.logger = Path(key_path), Path(model_dir), logger
        self._circuits, self._circuits_held, self._lock = collections.OrderedDict(), circuits_held, threading.Lock()

    def _log(self, *message):
        if self.logger is not None:
            self.logger.info(*message)

    # ---- keys: kept under their content's hash

    def _key_file(self, uid):
        if not re.fullmatch(r"[0-9a-f]{64}", str(uid)):
            raise HemiKeyError("a key id has 64 hexadecimal digits")
        return self.key_path / str(uid)

    def load_key(self, uid):
        try:
            return self._key_file(uid).read_bytes()
        except FileNotFoundError:
            raise HemiKeyError(f"there is no key {uid}: upload the evaluation keys first") from None

    def dump_key(self, key_bytes, uid):
        file = self._key_file(uid)
        self.key_path.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_bytes(key_bytes)
        os.replace(temporary, file)

    def add_key(self, key, model_name, module_name, input_shape):
        """Checks and keeps a client's evaluation keys. {"uid": their id}"""
        self.check_inputs(model_name, module_name, input_shape)
        uid = _native.ServerKeys(key).id
        self.dump_key(key, uid)
        self._log("keys %s added", uid)
        return {"uid": uid}

    # ---- modules

    def _found(self, *names):
        """The folder model_dir/names..., each name being one that a listing of the folder above has."""
        folder = self.model_dir
        for kind, name in zip(("model", "module", "shape"), names):
            there = {f.name: f for f in folder.iterdir() if f.is_dir()} if folder.is_dir() else {}
            if name not in there:
                raise HemiNotFoundError(f"there is no {kind} {str(name)[:80]!r}; there are {', '.join(sorted(there)) or 'none'}")
            folder = there[name]
        return folder

    def check_inputs(self, model_name, module_name=None, input_shape=None):
        """Raises HemiNotFoundError (a ValueError) for names that do not exist."""
        self._found(*[name for name in (model_name, module_name, input_shape) if name is not None])

    def list_shapes(self, model_name, module_name):
        """{shape: {}}"""
        folder = self._found(model_name, module_name)
        return {f.name: {} for f in sorted(folder.iterdir()) if (f / "server.zip").is_file()}

    def list_modules(self, model_name):
        """{module: {shape: {}}}"""
        folder = self._found(model_name)
        modules = {f.name: self.list_shapes(model_name, f.name) for f in sorted(folder.iterdir()) if f.is_dir()}
        return {name: shapes for name, shapes in modules.items() if shapes}

    def get_client(self, model_name, module_name, input_shape):
        """The bytes of client.zip."""
        file = self._found(model_name, module_name, input_shape) / "client.zip"
        if not file.is_file():
            raise HemiNotFoundError(f"module {module_name!r} has no client file for {input_shape}")
        return file.read_bytes()

    def get_circuit(self, model_name, module_name, input_shape):
        """The FHEModelServer of a module."""
        folder = self._found(model_name, module_name, input_shape)
        with self._lock:
            circuit = self._circuits.get(folder)
            if circuit is None:
                circuit = self._circuits[folder] = FHEModelServer(folder)
                self._log("%s/%s/%s loaded", model_name, module_name, input_shape)
            self._circuits.move_to_end(folder)
            while len(self._circuits) > self._circuits_held:
                self._circuits.popitem(last=False)
            return circuit

    def compute(self, model_input, uid, model_name, module_name, input_shape):
        """From the bytes of a request to those of the reply."""
        return self.get_circuit(model_name, module_name, input_shape).run(model_input, self.load_key(uid))

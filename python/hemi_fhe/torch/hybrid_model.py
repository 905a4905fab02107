"""Models of which chosen parts run on a server, on encrypted data."""

import contextlib
import os
import re
import shutil
import sys
import threading
import warnings
from pathlib import Path

import torch
from torch import nn

from .. import _native
from ..common.utils import HybridFHEMode
from ..deployment import FHEModelServer, HybridFHEModelServer  # noqa: F401  (the server is imported from here)
from ..deployment import tuple_to_underscore_str, underscore_str_to_tuple
from ..errors import HemiConflictError, HemiNotFoundError, HemiStateError, HemiUnsupportedError
from ._tensors import run_rows, storage_address, tensors_of, wipe
from .compile import compile_records

__all__ = [
    "HybridFHEMode",
    "HybridFHEModel",
    "HybridFHEModelServer",
    "RemoteModule",
    "convert_conv1d_to_linear",
    "tuple_to_underscore_str",
    "underscore_str_to_tuple",
]


class _Session:
    """What the remote modules of one HybridFHEModel share: the server, keys, connections, the mode of the present call."""

    def __init__(self, url, model_name, verbose):
        self.url, self.model_name, self.verbose = url, model_name, verbose
        self.connect_timeout = self.timeout = None
        self.prepare = "auto"
        self.call = threading.local()  # .mode: the mode asked for in this call
        self.lock = threading.RLock()
        self._keys = None
        self._free = []  # connections not in use: one for each thread that calls at the same time
        self.opened = {}  # name -> (name on the server, description)

    def keys(self):
        with self.lock:
            if self._keys is None:
                self._keys = _native.Keys()
            return self._keys

    def reset(self, path_to_keys=None):
        """New connections; new keys if a folder is given, or where the old ones belong to another process."""
        with self.lock:
            self._free = []
            if path_to_keys is not None:
                self._keys = _native.Keys(path_to_keys)
            elif self._keys is not None and not self._keys.usable():
                self._keys = None

    def connect(self):
        return _native.Connection(self.url, self.keys(), self.connect_timeout, self.timeout, self.prepare)

    @contextlib.contextmanager
    def connection(self):
        if self._keys is not None and not self._keys.usable():
            raise HemiStateError(
                "this client was made in another process, before a fork: its keys and connections are not shared. Call init_client() here"
            )
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self.connect()
        for key, (name, module) in list(self.opened.items()):
            if key not in connection:
                connection.open(key, self.model_name, name, module)
        free = self._free  # of this moment: after a reset the connection is not given back
        try:
            yield connection
        finally:
            free.append(connection)


class RemoteModule(nn.Module):
    """Stands in the model for a module that runs on a server. It does not show the private module's weights among its own
    parameters: they are in no state_dict. Made by HybridFHEModel."""

    def __init__(self, module, session, name, path):
        super().__init__()
        # straight into __dict__: nn.Module would register the private module as a child
        self.__dict__["_private"] = module
        self._session, self._name, self._path = session, name, path
        self._mode = None
        self._compiled = None  # QuantizedModule
        self._saved_to = None
        self._records = []
        self.clients = {}  # shape -> description of the module on the server
        self.last_stats = None
        self._totals = None
        self.training = module.training if module is not None else False

    # ---- what it is

    @property
    def private_module(self):
        """The float module, or None when it has been cleared or was never here."""
        return self.__dict__["_private"]

    @property
    def private_q_module(self):
        return self._compiled

    @property
    def module_name(self):
        return self._name

    @property
    def fhe_local_mode(self):
        """How this module computes, until it is changed. Set it to a HybridFHEMode or its name."""
        if self._mode is not None:
            return self._mode
        if self._session.url is not None or self._saved_to is not None:
            return HybridFHEMode.REMOTE
        return HybridFHEMode.TORCH if self._compiled is None else HybridFHEMode.DISABLE

    @fhe_local_mode.setter
    def fhe_local_mode(self, mode):
        self._mode = HybridFHEMode.of(mode)

    def extra_repr(self):
        where = f", server={self._session.url}" if self._session.url else ""
        return f"{self._name!r}, mode={self.fhe_local_mode.value}{where}"

    def _apply(self, function, *args, **kwargs):  # .to(), .half(), ... reach the private module too
        if self.private_module is not None:
            self.private_module._apply(function, *args, **kwargs)
        return super()._apply(function, *args, **kwargs)

    def train(self, mode=True):
        if self.private_module is not None:
            self.private_module.train(mode)
        return super().train(mode)

    def __reduce_ex__(self, protocol):
        raise TypeError(
            f"the remote module {self._name!r} can be neither pickled nor copied: it holds keys, connections or private weights. "
            "Keep model.state_dict() instead, which has neither"
        )

    # ---- computing

    def forward(self, *args, **kwargs):
        mode = getattr(self._session.call, "mode", None) or self.fhe_local_mode
        if mode is HybridFHEMode.TORCH or mode is HybridFHEMode.CALIBRATE:
            private = self._need_private(mode)
            if mode is HybridFHEMode.CALIBRATE:
                x = self._one_input(args, kwargs)
                self._records.append(x.detach().to("cpu", torch.float32, copy=True))
            return private(*args, **kwargs)
        x = self._one_input(args, kwargs)
        if mode is HybridFHEMode.REMOTE:
            return self.remote_call(x)
        compiled = self._need_compiled(mode)
        keys = self._session.keys() if mode is HybridFHEMode.EXECUTE else None
        return compiled.forward(x, fhe=mode, keys=keys)

    def _one_input(self, args, kwargs):
        if len(args) != 1 or kwargs or not isinstance(args[0], torch.Tensor):
            got = [type(a).__name__ for a in args] + [f"{k}={type(v).__name__}" for k, v in kwargs.items()]
            raise HemiUnsupportedError(
                f"module {self._name!r} is called with ({', '.join(got)}): a remote module takes one tensor. "
                "Choose the sub-modules that do"
            )
        return args[0]

    def drop_records(self):
        """Forgets the inputs recorded for calibration."""
        for record in self._records:
            record.zero_()
        self._records = []

    def _gone(self, mode):
        if self._saved_to is not None:
            why = f"they were saved to {self._saved_to} and cleared"
        else:
            why = "this is a client: they are on the server only"
        return HemiStateError(
            f"module {self._name!r} cannot run in mode {mode.value!r}: its weights are not here ({why}). "
            "Mode 'remote' runs it on the server"
        )

    def _need_private(self, mode):
        if self.private_module is None:
            raise self._gone(mode)
        return self.private_module

    def _need_compiled(self, mode):
        if self._compiled is None:
            if self.private_module is None:
                raise self._gone(mode)
            raise HemiStateError(f"module {self._name!r} cannot run in mode {mode.value!r} before compile_model(...)")
        return self._compiled

    def remote_call(self, x):
        """Runs the module on the server, whatever the mode. `last_stats` then has the figures of the call."""
        if self._name not in self._session.opened:
            self.init_fhe_client()
        description = self._session.opened[self._name][1]
        total = []

        def call(a, rows, b):
            with self._session.connection() as connection:
                total.append(connection.call(self._name, a, rows, b))

        try:
            y = run_rows(x, description.inputs, description.outputs, f"module {self._name!r}", call)
        except HemiConflictError as error:
            self._session.opened.pop(self._name, None)
            self._session.reset()
            self._stale = True
            raise HemiConflictError(f"{error} (init_client() does)") from None
        if total:
            self._note(total[0], x.numel() // description.inputs)
        return y

    def _note(self, stats, rows):
        last = {name: getattr(stats, name) for name in _native.STATS}
        last["rows"] = rows
        self.last_stats = last
        with self._session.lock:
            totals = self._totals or {"calls": 0, **dict.fromkeys(last, 0)}
            totals["calls"] += 1
            for key, value in last.items():
                totals[key] += value
            self._totals = totals

    # ---- the client

    def init_fhe_client(self, path_to_client=None, path_to_keys=None):
        """Gets the module's description from path_to_client/<module>/..., or from the server, and then keeps it there."""
        session = self._session
        if session.url is None:
            raise HemiStateError(
                f"module {self._name!r} has no server to run on: wrap the client model with "
                "HybridFHEModel(model, module_names, server_remote_address='http://HOST:8000', model_name=...), "
                "then call init_client()"
            )
        if path_to_keys is not None:
            session.reset(path_to_keys)
        names = list(dict.fromkeys([self._name, self._path, self._path.replace(".", "_")]))
        with session.lock:
            found = None
            if path_to_client is not None and not self.__dict__.pop("_stale", False):
                found = self._from_folder(Path(path_to_client), names)
            if found is None:
                found = self._from_server(names)
                if path_to_client is not None:
                    found[1].save(Path(path_to_client) / found[0] / tuple_to_underscore_str(found[1].shape))
            session.opened[self._name] = found
            self.clients = {tuple_to_underscore_str(found[1].shape): found[1]}
            if self._compiled is None:
                self.__dict__["_private"] = None  # an application has no use for it
                self.drop_records()

    @staticmethod
    def _from_folder(folder, names):
        for name in names:
            if (folder / name).is_dir() and any((folder / name).rglob("client.zip")):
                return name, _native.Module.open(folder / name, with_weights=False)
        return None

    def _from_server(self, names):
        connection = self._session.connect()
        try:
            missing = None
            for name in names:
                try:
                    return name, connection.open(name, self._session.model_name, name)
                except HemiNotFoundError as error:
                    missing = missing or error
            raise missing
        finally:
            connection.close()


class HybridFHEModel:
    """A model of which the named modules run on a server. Edits `model` in place."""

    def __init__(self, model, module_names, server_remote_address=None, model_name="model", verbose=0):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a torch.nn.Module, not {type(model).__name__}")
        self.model = model
        self.module_names = [module_names] if isinstance(module_names, str) else list(module_names)
        self.server_remote_address, self.model_name, self.verbose = server_remote_address, model_name, verbose
        self.configuration = None
        self._session = _Session(server_remote_address, model_name, verbose)
        paths = _resolve(model, self.module_names)
        self.remote_modules = {name: _wrap(model, path, self._session, name) for name, path in paths.items()}
        self.private_modules = {name: remote.private_module for name, remote in self.remote_modules.items()}
        self.private_q_modules = {
            name: remote.private_q_module for name, remote in self.remote_modules.items() if remote.private_q_module is not None
        }

    # ---- computing

    def set_fhe_mode(self, hybrid_fhe_mode):
        """Sets the mode of all remote modules, until it is changed."""
        mode = HybridFHEMode.of(hybrid_fhe_mode)
        for module in self.remote_modules.values():
            module.fhe_local_mode = mode

    def forward(self, *args, fhe=None, **kwargs):
        """Calls the model. fhe: a mode for this call only."""
        if fhe is None:
            return self.model(*args, **kwargs)
        call = self._session.call
        before = getattr(call, "mode", None)
        call.mode = HybridFHEMode.of(fhe)
        try:
            return self.model(*args, **kwargs)
        finally:
            call.mode = before

    __call__ = forward

    def stats(self):
        """{module: {"calls", "rows", bytes and milliseconds summed over the calls, "last": those of the last call}}."""
        return {
            name: {**(module._totals or {"calls": 0}), "last": module.last_stats} for name, module in self.remote_modules.items()
        }

    # ---- the owner

    def compile_model(
        self,
        x,
        n_bits=8,
        rounding_threshold_bits=None,
        p_error=None,
        device="cpu",
        configuration=None,
        use_dynamic_quantization=False,
    ):
        """Runs the model on x (a tensor, or a tuple or dict of arguments) and compiles the remote modules for what they get.
        x=None: the inputs recorded in mode CALIBRATE are enough."""
        for name, remote in self.remote_modules.items():
            remote._need_private(HybridFHEMode.CALIBRATE)
        self._refuse_shared_weights()
        self.configuration = configuration
        if x is not None:
            self._calibrate(x, device)
        for name, remote in self.remote_modules.items():
            if self.verbose:
                print(f"compiling {name}", file=sys.stderr)
            remote._compiled = self.private_q_modules[name] = compile_records(
                remote.private_module, remote._records, n_bits, configuration, self.verbose, f"module {name!r}"
            )
        for remote in self.remote_modules.values():
            remote.drop_records()

    def _calibrate(self, x, device):
        args, kwargs = ((), x) if isinstance(x, dict) else (tuple(x), {}) if isinstance(x, (tuple, list)) else ((x,), {})
        target = torch.device(device)
        move = lambda value: value.to(target) if isinstance(value, torch.Tensor) else value  # noqa: E731
        first = next((t for _, t in self._all_tensors()), None)
        home = first.device if first is not None else target
        modes = [(m, m.training) for m in self.model.modules()]
        self.model.eval()
        try:
            if home != target:
                self.model.to(target)
            with torch.no_grad():
                self.forward(*map(move, args), fhe=HybridFHEMode.CALIBRATE, **{k: move(v) for k, v in kwargs.items()})
        finally:
            if home != target:
                self.model.to(home)
            for module, training in modes:
                if isinstance(module, RemoteModule):
                    module.train(training)
                else:
                    module.training = training

    def _all_tensors(self):
        yield from tensors_of(self.model)
        for remote in self.remote_modules.values():
            if remote.private_module is not None:
                yield from tensors_of(remote.private_module)

    def _refuse_shared_weights(self):
        """Private weights that the client's part of the model uses as well would not be private."""
        local = {storage_address(t): name for name, t in tensors_of(self.model)}
        local.pop(0, None)
        for name, remote in self.remote_modules.items():
            if remote.private_module is None:
                continue
            for weight, tensor in tensors_of(remote.private_module):
                other = local.get(storage_address(tensor))
                if other is not None:
                    raise HemiUnsupportedError(
                        f"the weights of module {name!r} cannot be private: {weight!r} shares its memory with {other!r} (tied weights), "
                        "which stays in the client's model. Make that module remote too, or untie them with a copy "
                        "(which publishes the copy)"
                    )

    def save_and_clear_private_info(self, path, via_mlir=True):
        """Writes PATH/<module>/<shape>/{client.zip,server.zip} and PATH/model.pth (the client's state_dict), then clears the
        private weights from this model: they are overwritten, and are in the server.zip files only."""
        cleared = [remote for remote in self.remote_modules.values() if remote._saved_to is not None]
        if cleared:
            raise HemiStateError(
                f"module {cleared[0]._name!r} was already saved to {cleared[0]._saved_to} and cleared from this object; what was saved is "
                "untouched. To save again, load the model again, wrap and compile it"
            )
        for name, remote in self.remote_modules.items():
            if remote._compiled is None or remote.private_module is None:
                if remote.private_module is None:
                    raise remote._gone(HybridFHEMode.DISABLE)
                raise HemiStateError(f"module {name!r} is not compiled: call compile_model(...) before save_and_clear_private_info(...)")
        self._refuse_shared_weights()
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        for name, remote in self.remote_modules.items():
            remote._compiled.save(path / name / tuple_to_underscore_str(remote._compiled.input_shape))
        self._save_client_model(path / "model.pth")
        self._remove_replaced(path)
        for name, remote in self.remote_modules.items():
            wipe(remote.private_module)
            remote.__dict__["_private"] = None
            remote.drop_records()
            remote._compiled.clear()
            remote._compiled = None
            remote._saved_to = str(path)
            self.private_modules[name] = None
        self.private_q_modules.clear()

    def _save_client_model(self, path):
        # copies: a view would bring along the whole memory behind it
        state = {
            name: value.detach().to("cpu", copy=True).contiguous() if isinstance(value, torch.Tensor) else value
            for name, value in self.model.state_dict().items()
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            torch.save(state, temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()

    def _remove_replaced(self, path):
        """Earlier compilations of these modules, for other shapes, would be served beside the new ones."""
        for name, remote in self.remote_modules.items():
            now = tuple_to_underscore_str(remote._compiled.input_shape)
            for folder in (path / name).iterdir():
                if folder.name != now and re.fullmatch(r"po_[0-9_]+_pc", folder.name):
                    if {f.name for f in folder.iterdir()} <= {"client.zip", "server.zip"}:
                        shutil.rmtree(folder)
        others = sorted({f.parent.parent.name for f in path.glob("*/po_*_pc/server.zip")} - set(self.remote_modules))
        if others:
            warnings.warn(f"{path} also holds the compiled module(s) {', '.join(others)}: a server of this folder serves them too")

    # ---- the client

    def init_client(self, path_to_clients=None, path_to_keys=None, timeout=None, connect_timeout=None, prepare=None):
        """Gets ready to call the server. path_to_clients: where the modules' client files are, or are to be kept once they were
        fetched. path_to_keys: a folder for the secret keys; without it they live in memory only. Time-outs in seconds. prepare:
        "auto" (coming calls are prepared in the background where it helps), "on" or "off"."""
        session = self._session
        session.connect_timeout = connect_timeout or session.connect_timeout
        session.timeout = timeout or session.timeout
        session.prepare = prepare or session.prepare
        session.reset(path_to_keys)
        for name, module in self.remote_modules.items():
            module.init_fhe_client(path_to_clients)
            self.private_modules[name] = module.private_module

    def publish_to_hub(self):
        """Not offered: what may be published are files, and any tool uploads those."""
        raise NotImplementedError(
            "Hemi does not upload models. What a client needs, and may be published, is model.pth and the client.zip files of the "
            "folder given to save_and_clear_private_info; a server.zip file must never be"
        )


def _resolve(model, names):
    """{name as given: path in the model}: the exact path first, then a unique alias with '_' for '.'."""
    if not names:
        raise ValueError("module_names is empty: name at least one module to run remotely")
    paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    known = ", ".join(map(repr, paths)) or "none"
    chosen = {}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a module is named by a str, not {type(name).__name__}")
        fit = [name] if name in paths else [path for path in paths if path.replace(".", "_") == name]
        if name == "":
            raise ValueError(f"the whole model cannot be remote under its empty name: put it into an nn.Sequential. It has the modules {known}")
        if not fit:
            raise ValueError(f"the model has no module {name!r}; it has {known}")
        if len(fit) > 1:
            raise ValueError(f"{name!r} may be any of {', '.join(map(repr, fit))}: give the exact name")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name):
            raise ValueError(f"{name!r} cannot be the name of a remote module: letters, digits, '_', '-' and '.' can")
        chosen[name] = fit[0]
    for name, path in chosen.items():
        for other, outer in chosen.items():
            if name != other and (path == outer or path.startswith(outer + ".")):
                raise ValueError(f"{name!r} is {other!r} or a part of it: name one of them")
    return chosen


def _wrap(model, path, session, name):
    """Puts a RemoteModule at that path. One that is there already, or further in, is replaced: they never nest."""
    parent_path, _, leaf = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    module = getattr(parent, leaf)
    if isinstance(module, RemoteModule):
        old, module = module, module.private_module
        remote = RemoteModule(module, session, name, path)
        remote._compiled, remote._saved_to, remote._records = old._compiled, old._saved_to, old._records
        remote.training = old.training
    else:
        for inner_path, inner in list(module.named_modules()):
            if isinstance(inner, RemoteModule):
                if inner.private_module is None:
                    raise ValueError(f"{path}.{inner_path} is remote already, without its weights: {name!r} cannot be made remote as a whole")
                inner_parent, _, inner_leaf = inner_path.rpartition(".")
                setattr(module.get_submodule(inner_parent), inner_leaf, inner.private_module)
        remote = RemoteModule(module, session, name, path)
    setattr(parent, leaf, remote)
    return remote


def convert_conv1d_to_linear(layer_or_module):
    """Replaces every Conv1D of Hugging Face's transformers (a Linear with its weight transposed) by a Linear, in place; a
    Conv1D itself gives a new Linear."""
    if _is_conv1d(layer_or_module):
        weight = layer_or_module.weight
        linear = nn.Linear(weight.shape[0], weight.shape[1], bias=layer_or_module.bias is not None)
        linear = linear.to(device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight.T)
            if layer_or_module.bias is not None:
                linear.bias.copy_(layer_or_module.bias)
        linear.train(layer_or_module.training)
        return linear
    for name, child in list(layer_or_module.named_children()):
        setattr(layer_or_module, name, convert_conv1d_to_linear(child))
    return layer_or_module


def _is_conv1d(module):
    return any(c.__name__ == "Conv1D" and c.__module__.startswith("transformers.") for c in type(module).__mro__)

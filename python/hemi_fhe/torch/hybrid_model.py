"""Models of which chosen parts run on a server, on encrypted data."""

import contextlib
import os
import re
import secrets
import shutil
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from ..common.utils import HybridFHEMode
from ..deployment import FHEModelServer, HybridFHEModelServer  # noqa: F401  (the server is imported from here)
from ..deployment import tuple_to_underscore_str, underscore_str_to_tuple
from ..errors import HemiArgumentError, HemiStateError, HemiUnsupportedError
from ._remote import RemoteModule, Session, transposed_name
from ._shared import groups_of
from ._tensors import storage_address, tensors_of, wipe
from .compile import compile_sharing, compile_transposed, is_conv1d, options_of

__all__ = [
    "HybridFHEMode",
    "HybridFHEModel",
    "HybridFHEModelServer",
    "RemoteModule",
    "convert_conv1d_to_linear",
    "tuple_to_underscore_str",
    "underscore_str_to_tuple",
]


class HybridFHEModel:
    """A model of which the named modules run on a server. Edits `model` in place."""

    def __init__(self, model, module_names, server_remote_address=None, model_name="model", verbose=0):
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is a torch.nn.Module, not {type(model).__name__}")
        self.model = model
        self.module_names = [module_names] if isinstance(module_names, str) else list(module_names)
        self.server_remote_address, self.model_name, self.verbose = server_remote_address, model_name, verbose
        self.configuration = None
        self._session = Session(server_remote_address, model_name, verbose)
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
            try:
                return self.model(*args, **kwargs)
            finally:
                self._session.recorder.end_of_call()
        call = self._session.call
        before = getattr(call, "mode", None)
        call.mode = HybridFHEMode.of(fhe)
        try:
            return self.model(*args, **kwargs)
        finally:
            call.mode = before
            self._session.recorder.end_of_call()

    __call__ = forward

    def stats(self):
        """{module: {"calls", "rows", bytes and milliseconds summed over the calls, "last": those of the last call, "backward":
        sums of the transposed product, where gradients were computed}}. Modules that share an input are served by one request: its
        bytes and milliseconds are those of the module that was called first."""
        return {name: module.stats() for name, module in self.remote_modules.items()}

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
        backward=False,
        tolerance=None,
        range_margin=None,
        degree_max=None,
        parameter_set=None,
        rows=None,
    ):
        """Runs the model on x (a tensor, or a tuple or dict of arguments) and compiles the remote modules for what they get.
        x=None: the inputs recorded in mode CALIBRATE are enough. backward=True: gradients pass through them, too, by encrypted
        products with the transposed matrices. configuration: options of the compiler, or such for each module: {name: {...}}. tolerance and what follows
        it: options of modules with activations (docs/python.md)."""
        for name, remote in self.remote_modules.items():
            remote._need_private(HybridFHEMode.CALIBRATE)
        self._refuse_shared_weights()
        clash = next((name for name in self.remote_modules if transposed_name(name) in self.remote_modules), None)
        if backward and clash is not None:
            raise ValueError(f"{transposed_name(clash)!r} is the name of the transposed product of {clash!r}: give that module another name")
        more = {"tolerance": tolerance, "range_margin": range_margin, "degree_max": degree_max, "set": parameter_set, "rows": rows}
        configurations = self._configurations(configuration, more)
        self.configuration = configuration
        if x is not None:
            self._calibrate(x, device)
        remotes = self.remote_modules
        groups = groups_of({name: remote._records for name, remote in remotes.items()})
        alone = [[name] for name in remotes if not any(name in group for group in groups)]
        self.private_q_modules.clear()
        for names in groups + alone:
            if self.verbose:
                print(f"compiling {', '.join(names)}", file=sys.stderr)
            members = {name: (remotes[name].private_module, remotes[name]._records, configurations[name]) for name in names}
            for name, compiled in compile_sharing(members, n_bits, self.verbose).items():
                remotes[name]._compiled = compiled
        for name, remote in remotes.items():
            self.private_q_modules[name], remote._transposed = remote._compiled, None
            if backward:
                what = f"module {name!r}"
                remote._transposed = compile_transposed(remote.private_module, n_bits, configurations[name], self.verbose, what)
                self.private_q_modules[transposed_name(name)] = remote._transposed
        for record in {id(r): r for remote in remotes.values() for r in remote._records}.values():
            record.zero_()
        for remote in remotes.values():
            remote.drop_records()

    def _configurations(self, configuration, more):
        """For each module its options of the compiler."""
        names = self.remote_modules
        if isinstance(configuration, dict) and configuration and set(configuration) <= set(names):
            return {name: options_of(configuration.get(name), **more) for name in names}
        return {name: options_of(configuration, **more) for name in names}

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
            for operation, compiled in remote.operations().items():
                compiled.save_shapes(path / operation)
        self._save_client_model(path / "model.pth")
        self._remove_replaced(path)
        for name, remote in self.remote_modules.items():
            wipe(remote.private_module)
            remote.__dict__["_private"] = None
            remote.drop_records()
            for compiled in remote.operations().values():
                compiled.clear()
            remote._compiled = remote._transposed = None
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
        """Earlier compilations of these modules, for other shapes or for gradients, would be served beside the new ones."""
        saved = {}
        for name, remote in self.remote_modules.items():
            saved.setdefault(transposed_name(name), set())
            for operation, compiled in remote.operations().items():
                saved[operation] = set(map(tuple_to_underscore_str, compiled.input_shapes))
        for operation, now in saved.items():
            for folder in (path / operation).glob("po_*_pc"):
                if folder.name not in now and re.fullmatch(r"po_[0-9_]+_pc", folder.name):
                    if {f.name for f in folder.iterdir()} <= {"client.zip", "server.zip"}:
                        shutil.rmtree(folder)
        others = sorted({f.parent.parent.name for f in path.glob("*/po_*_pc/server.zip")} - set(saved))
        if others:
            warnings.warn(f"{path} also holds the compiled module(s) {', '.join(others)}: a server of this folder serves them too")

    # ---- the client

    def init_client(self, path_to_clients=None, path_to_keys=None, timeout=None, connect_timeout=None, prepare=None, prepare_rows=0,
                    token=None, ca_file=None, allow_plain_token=False, passphrase=None, keyring=False):
        """Gets ready to call the server. path_to_clients: where the modules' client files are, or are to be kept once they were
        fetched. path_to_keys: a folder for the secret keys; without it they live in memory only. Time-outs in seconds. prepare: None prepares coming calls ahead, in the
        background, where that helps; True always, False never; prepare_rows: how many rows at a time, 0 for the library's choice.
        token: what the server's operator gave (`hemi tenants add`; without it the environment's HEMI_TOKEN); it is sent by https, or to this machine, unless
        allow_plain_token says that the network between is one's own. ca_file: certificates to trust (PEM), where the system does not. passphrase: the key
        files are encrypted under it; keyring: under one that is kept in the system's keyring, and made when first needed (the package `keyring`)."""
        session = self._session
        session.prepare, session.prepare_rows = prepare, prepare_rows
        session.connect_timeout = connect_timeout or session.connect_timeout
        session.timeout = timeout or session.timeout
        session.token = session.token if token is None else token
        session.ca_file = ca_file or session.ca_file
        session.allow_plain_token = allow_plain_token or session.allow_plain_token
        session.reset(path_to_keys, _passphrase(path_to_keys, passphrase, keyring))
        for name, module in self.remote_modules.items():
            module.init_fhe_client(path_to_clients)
            self.private_modules[name] = module.private_module

    def publish_to_hub(self):
        """Not offered: what may be published are files, and any tool uploads those."""
        raise NotImplementedError(
            "Hemi does not upload models. What a client needs, and may be published, is model.pth and the client.zip files of the "
            "folder given to save_and_clear_private_info; a server.zip file must never be"
        )


def _passphrase(folder, passphrase, use_keyring):
    """The one that was given, or that of the keyring."""
    if passphrase is None and not use_keyring:
        return None
    if folder is None:
        raise HemiArgumentError("a passphrase or a keyring is for key files: give path_to_keys, too (without it keys are in memory only)")
    if passphrase is not None:
        if use_keyring:
            raise HemiArgumentError("passphrase and keyring: one of them")
        return passphrase
    try:
        import keyring
    except ImportError:
        raise HemiUnsupportedError("keyring=True needs the package keyring: pip install keyring") from None
    name = str(Path(folder).expanduser().resolve())
    found = keyring.get_password("hemi", name)
    if found is None:
        found = secrets.token_urlsafe(32)
        keyring.set_password("hemi", name, found)
    return found


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
        remote._compiled, remote._transposed = old._compiled, old._transposed
        remote._saved_to, remote._records = old._saved_to, old._records
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
    if is_conv1d(layer_or_module):
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

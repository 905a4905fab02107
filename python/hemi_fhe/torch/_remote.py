"""What stands in a model for a module that runs on a server, and what all of them share."""

import contextlib
import threading
from pathlib import Path

import torch
from torch import nn

from .. import _native
from .._progress import Bar
from ..common.utils import HybridFHEMode
from ..deployment import tuple_to_underscore_str
from ..errors import HemiConflictError, HemiNotFoundError, HemiRemoteError, HemiStateError, HemiUnsupportedError
from ._backward import differentiable
from ._shared import Recorder, SharedResults
from ._tensors import choose, flat_rows, run_rows_many

CALL_MODULES_MAX = 16  # of one request: HEMI_CALL_MODULES_MAX
ROWS_OF_A_STEP = 512  # of the progress bar: what one request holds


def transposed_name(name):
    """Of the second operation of a module, the product with its transposed matrix: the name of its folder, too."""
    return name + ".T"


class Opened:
    """An operation as the server has it: its name there, and a description for each shape it was compiled for."""

    def __init__(self, name, modules):
        self.name, self.modules = name, modules


def connection_key(operation, module):
    """By the description itself, not by what it says: after it was fetched anew, results may have another size under the same shape."""
    return operation, module


class Session:
    """What the remote modules of one HybridFHEModel share: the server, keys, connections, the mode of the present call."""

    def __init__(self, url, model_name, verbose):
        self.url, self.model_name, self.verbose = url, model_name, verbose
        self.connect_timeout = self.timeout = None
        self.prepare, self.prepare_rows = None, 0
        self.token = self.ca_file = None
        self.allow_plain_token = False
        self.call = threading.local()  # .mode: the mode asked for in this call
        self.lock = threading.RLock()
        self._keys = None
        self._free = []  # connections not in use: one for each thread that calls at the same time
        self.opened = {}  # name of an operation -> Opened
        self.stale = set()  # operations of which the server has another version than was opened
        self.recorder, self.shared = Recorder(), SharedResults()

    def keys(self):
        with self.lock:
            if self._keys is None:
                self._keys = _native.Keys()
            return self._keys

    def reset(self, path_to_keys=None, passphrase=None):
        """New connections; new keys if a folder is given, or where the old ones belong to another process."""
        with self.lock:
            self._free = []
            self.shared.forget()
            if path_to_keys is not None:
                self._keys = _native.Keys(path_to_keys, passphrase)
            elif self._keys is not None and not self._keys.usable():
                self._keys = None

    def connect(self, prepare=None):
        prepare = self.prepare if prepare is None else prepare
        bar = Bar(self.model_name) if self.verbose else None
        return _native.Connection(self.url, self.keys(), self.connect_timeout, self.timeout, prepare, self.prepare_rows, bar,
                                  self.token, self.ca_file, self.allow_plain_token)

    @contextlib.contextmanager
    def connection(self, wanted=()):
        """One on which everything that was opened is open, and what is wanted: (operation, module)."""
        if self._keys is not None and not self._keys.usable():
            raise HemiStateError(
                "this client was made in another process, before a fork: its keys and connections are not shared. Call init_client() here"
            )
        free = self._free  # of this moment: after a reset the connection is not given back
        try:
            connection = free.pop()
        except IndexError:
            connection = self.connect()
        everything = [(operation, opened.name, module) for operation, opened in list(self.opened.items()) for module in opened.modules]
        for operation, name, module in everything + [(operation, operation, module) for operation, module in wanted]:
            key = connection_key(operation, module)
            if key not in connection:
                connection.open(key, self.model_name, name, module)
        try:
            yield connection
        finally:
            free.append(connection)

    def siblings(self, operation, module):
        """What one encryption serves together with this module: what they have in common, and the operations, this one first."""
        share = module.shares_with()
        if share is None:
            return None, [operation]
        others = [
            name for name, opened in list(self.opened.items()) if name != operation and opened.modules[0].shares_with() == share
        ]
        return share, ([operation] + others)[:CALL_MODULES_MAX]


def steps(rows, module, bar):
    """(first row, how many) of each part of a call; one part unless there is a bar to show for many. Circuits show how far they are by
    themselves."""
    if bar is None or module.is_circuit or rows <= ROWS_OF_A_STEP:
        yield 0, rows
        return
    for first in range(0, rows, ROWS_OF_A_STEP):
        yield first, min(ROWS_OF_A_STEP, rows - first)
        bar("rows", min(first + ROWS_OF_A_STEP, rows), rows)


def add_stats(parts):
    """The figures of one call that went in several requests."""
    return {**{name: sum(getattr(stats, name) for stats in parts) for name in _native.STATS}, "requests": len(parts)}


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
        self._transposed = None  # QuantizedModule of the transposed product, compiled for gradients
        self._saved_to = None
        self._records = []
        self.clients = {}  # shape -> description of the module on the server
        self.last_stats = None
        self._totals = {}  # operation -> sums
        self.training = module.training if module is not None else False

    # ---- what it is

    @property
    def private_module(self):
        """The float module, or None when it has been cleared or was never here."""
        return self.__dict__["_private"]

    @property
    def private_q_module(self):
        return self._compiled

    def operations(self):
        """{name: QuantizedModule} of what is compiled here."""
        both = {self._name: self._compiled, transposed_name(self._name): self._transposed}
        return {name: compiled for name, compiled in both.items() if compiled is not None}

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
                self._records.append(self._session.recorder.record(self._one_input(args, kwargs)))
            return private(*args, **kwargs)
        return self._run(mode, self._one_input(args, kwargs))

    def remote_call(self, x):
        """Runs the module on the server, whatever the mode. `last_stats` then has the figures of the call."""
        return self._run(HybridFHEMode.REMOTE, x)

    def _run(self, mode, x):
        return differentiable(x, lambda: self._product(mode, x), lambda gradient: self._transposed_product(mode, gradient))

    def _product(self, mode, x):
        if mode is HybridFHEMode.REMOTE:
            return self._call_server(x)
        compiled = self._need_compiled(mode)
        keys = self._session.keys() if mode is HybridFHEMode.EXECUTE else None
        return compiled.forward(x, fhe=mode, keys=keys)

    def _transposed_product(self, mode, gradient):
        """What the gradient with respect to the output is with respect to the input."""
        operation = transposed_name(self._name)
        if mode is HybridFHEMode.REMOTE:
            opened = self._session.opened.get(self._name)
            if opened is not None and opened.modules[0].is_circuit:
                raise self._no_backward(True)
            if operation not in self._session.opened:
                self._open_transposed()
            return self._call_operation(operation, gradient)
        if self._transposed is None:
            raise self._no_backward(self._need_compiled(mode).is_circuit)
        keys = self._session.keys() if mode is HybridFHEMode.EXECUTE else None
        return self._transposed.forward(gradient, fhe=mode, keys=keys)

    def _no_backward(self, is_circuit=False):
        if is_circuit:
            return HemiUnsupportedError(
                f"no gradient passes through module {self._name!r}, which has activations: make the Linear modules in it remote one by one, with "
                "compile_model(..., backward=True), and leave the activations to the client. Where no gradient is wanted, call the model "
                "under torch.no_grad()"
            )
        return HemiUnsupportedError(
            f"module {self._name!r} has no transposed product, which the gradient of its input is: its owner compiles it with "
            "compile_model(..., backward=True). Where no gradient is wanted, call the model under torch.no_grad()"
        )

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

    # ---- calls

    def _call_server(self, x):
        if self._name not in self._session.opened:
            self.init_fhe_client()
        session, what = self._session, f"module {self._name!r}"
        module = choose(session.opened[self._name].modules, x, what)
        group, names = session.siblings(self._name, module)
        if group is None or x.numel() == 0:
            return self._call_operation(self._name, x)
        flat = flat_rows(x)
        here = session.shared.take(group, self._name, x, flat)
        if here is not None:
            self._note(self._name, add_stats([]), module.fits(x.shape)[0])
            return here[0]
        if not session.shared.worth_asking(group):
            names = names[:1]
        results = self._call_many(names, x)
        session.shared.keep(group, self._name, x, flat, dict(zip(names[1:], results[1:])))
        return results[0]

    def _call_operation(self, operation, x):
        return self._call_many([operation], x)[0]

    def _call_many(self, operations, x):
        """The results of operations that share x, by one request; the figures are noted with the first of them."""
        session, what = self._session, f"module {operations[0]!r}"
        modules = [choose(session.opened[operation].modules, x, what) for operation in operations]
        keys = [connection_key(operation, module) for operation, module in zip(operations, modules)]
        parts = []

        def call(a, rows, ys):
            with session.connection(zip(operations, modules)) as connection:
                bar = connection.progress if session.verbose else None
                if bar is not None:
                    bar.name = operations[0]
                for first, count in steps(rows, modules[0], bar):
                    at = [y + 4 * first * module.outputs for y, module in zip(ys, modules)]
                    start = a + 4 * first * modules[0].inputs
                    if len(at) == 1:
                        parts.append(connection.call(keys[0], start, count, at[0]))
                    else:
                        parts.append(connection.call_many(keys, start, count, at))

        try:
            results = run_rows_many(x, modules, what, call)
        except HemiConflictError as error:
            with session.lock:
                for operation in operations:
                    session.opened.pop(operation, None)
                session.stale.update(operations)
            session.reset()
            raise HemiConflictError(f"{error} (init_client() does)") from None
        if parts:
            stats, rows = add_stats(parts), modules[0].fits(x.shape)[0]
            self._note(operations[0], stats, rows)
            _native.warn_out_of_range(what, modules[0], stats["rows_out_of_range"], rows)
        return results

    def prepare(self, rows):
        """Prepares the next `rows` rows of this module's calls in this thread now, and waits for it: each call then costs the server one
        plain integer product. Calls do so by themselves, in the background, where it helps. Returns how many rows are prepared."""
        session = self._session
        if self._name not in session.opened:
            self.init_fhe_client()
        module = session.opened[self._name].modules[0]
        with session.connection([(self._name, module)]) as connection:
            return connection.prepare(connection_key(self._name, module), rows)

    def _note(self, operation, last, rows):
        last = {**last, "rows": rows}
        with self._session.lock:
            if operation == self._name:
                self.last_stats = last
            totals = self._totals.setdefault(operation, {"calls": 0, **dict.fromkeys(last, 0)})
            totals["calls"] += 1
            for key, value in last.items():
                totals[key] += value

    def stats(self):
        """Sums over the calls, the last call's figures, and "backward": the sums of the transposed product, if it was used."""
        with self._session.lock:
            totals = {**self._totals.get(self._name, {"calls": 0}), "last": self.last_stats}
            backward = self._totals.get(transposed_name(self._name))
            return {**totals, "backward": dict(backward)} if backward else totals

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
        with session.lock:
            found = session.opened[self._name] = self._find(self._names(), path_to_client, self._name)
            self.clients = {tuple_to_underscore_str(module.shape): module for module in found.modules}
            self._folder = path_to_client
            transposed = transposed_name(self._name)
            session.opened.pop(transposed, None)  # opened again when it is first needed
            if path_to_client is not None:  # its keys go up with the others
                there = self._from_folder(Path(path_to_client), [transposed_name(found.name)])
                if there is not None and transposed not in session.stale:
                    session.opened[transposed] = there
            if self._compiled is None:
                self.__dict__["_private"] = None  # an application has no use for it
                self.drop_records()

    _folder = None

    def _names(self):
        return list(dict.fromkeys([self._name, self._path, self._path.replace(".", "_")]))

    def _open_transposed(self):
        session = self._session
        name = transposed_name(session.opened[self._name].name if self._name in session.opened else self._name)
        try:
            with session.lock:
                session.opened[transposed_name(self._name)] = self._find([name], self._folder, transposed_name(self._name))
        except HemiNotFoundError as error:
            raise self._no_backward() from error

    def _find(self, names, folder, operation):
        """From the folder, unless the server said that it has another module now; otherwise from the server."""
        found = None
        if folder is not None and operation not in self._session.stale:
            found = self._from_folder(Path(folder), names)
        if found is None:
            found = self._from_server(names)
            for module in found.modules if folder is not None else []:
                module.save(Path(folder) / found.name / tuple_to_underscore_str(module.shape))
        self._session.stale.discard(operation)
        return found

    @staticmethod
    def _from_folder(folder, names):
        for name in names:
            files = sorted((folder / name).rglob("client.zip")) if (folder / name).is_dir() else []
            if files:
                return Opened(name, [_native.Module.open(file.parent, with_weights=False) for file in files])
        return None

    def _from_server(self, names):
        session = self._session
        connection = session.connect(prepare=False)
        try:
            missing = None
            for name in names:
                try:
                    return Opened(name, [connection.open(name, session.model_name, name)])
                except HemiNotFoundError as error:
                    missing = missing or error
                except HemiRemoteError:  # compiled for several shapes: each has a description of its own
                    shapes = [entry["shape"] for entry in connection.models(session.model_name) if entry["name"].replace(".", "_") == name.replace(".", "_")]
                    if len(shapes) < 2:
                        raise
                    return Opened(name, [connection.open((name, shape), session.model_name, name, shape=shape) for shape in shapes])
            raise missing
        finally:
            connection.close()

"""The C library as Python objects. Nothing here needs torch or numpy: data are addresses (int) and byte strings.

Every call releases the interpreter's lock while it is in C. Objects made in one process refuse to work in a forked child:
keys and connections must not be shared by two processes.
"""

import json
import os
import threading

from . import errors

try:
    from ._core import ffi, lib
except ImportError as error:  # pragma: no cover
    raise ImportError(
        "the extension hemi_fhe._core is missing: run `make` and `python/build.sh` in the source tree, or `pip install .`"
    ) from error

NULL = ffi.NULL
ID_BYTES = 16
# of one request that is computed in this process
ROWS_AT_ONCE, CIPHERTEXTS_AT_ONCE, BYTES_AT_ONCE = 512, 16, 64 << 20


@ffi.def_extern(name="hemi_py_progress")
def _progress(context, what, done, total):
    ffi.from_handle(context)(ffi.string(what).decode("utf-8", "replace"), done, total)


def error_of(status, message=None):
    """The exception for a hemi_status."""
    text = message or ffi.string(lib.hemi_status_text(status)).decode()
    return errors.BY_STATUS.get(status, errors.HemiError)(text, status)


def _call(function, *arguments):
    """Calls a C function whose last parameter is the error, and raises if it fails."""
    err = ffi.new("hemi_error *")
    status = function(*arguments, err)
    if status:
        raise error_of(status, ffi.string(err.message).decode("utf-8", "replace"))


def _bytes(text):
    return NULL if text is None else os.fsencode(text)


def _floats(address):
    return ffi.cast("float *", address)


def _const_floats(address):
    return ffi.cast("const float *", address)


class OneProcess:
    """Refuses to be copied, pickled, or used in a forked child."""

    what = "this object"

    def __init__(self):
        self._pid = os.getpid()

    def usable(self):
        return self._pid == os.getpid()

    def check_process(self):
        if not self.usable():
            raise errors.HemiStateError(
                f"{self.what} was made in another process (before a fork) and is not used in this one: make a new one here"
            )

    def __reduce_ex__(self, protocol):
        raise TypeError(f"{self.what} can be neither pickled nor copied: it belongs to the process that made it")


class Module:
    """A compiled module (hemi_module). With weights on the owner's and the server's side, without on the client's."""

    def __init__(self, pointer):
        self._pointer = ffi.gc(pointer, lib.hemi_module_free)
        info = ffi.new("hemi_module_info *")
        lib.hemi_module_get_info(pointer, info)
        self.inputs, self.outputs = info.inputs, info.outputs
        self.has_weights = bool(info.has_weights)
        self.shape = tuple(info.shape[0 : info.shape_rank])
        self.output_shape = tuple(info.output_shape[0 : info.output_rank])
        self.operation = ffi.string(info.operation).decode()
        self.is_circuit = self.operation == "circuit"  # with non-linearities
        self.of_rows = self.operation == "linear" or bool(info.circuit_rows)  # otherwise of samples, all of one shape
        self.input_range = (info.input_low, info.input_high) if self.is_circuit else None
        self.rows_at_once = ROWS_AT_ONCE
        if self.is_circuit:
            self.rows_at_once = info.packed_rows * max(1, min(CIPHERTEXTS_AT_ONCE, BYTES_AT_ONCE // info.upload_bytes))
        self.params = info.params
        self.input_group = bytes(ffi.buffer(info.input_group)).hex() if info.has_input_group else None

    @property
    def pointer(self):
        if self._pointer is None:
            raise errors.HemiStateError("this compiled module has been cleared: its weights are on the server only")
        return self._pointer

    def clear(self):
        """Frees the module and its weights, as soon as no other thread computes with it."""
        self._pointer, self.has_weights = None, False

    def __reduce_ex__(self, protocol):
        raise TypeError("a compiled module can be neither pickled nor copied: save it to a folder")

    def info(self):
        """Everything hemi_module_info holds, as a dict."""
        info = ffi.new("hemi_module_info *")
        lib.hemi_module_get_info(self.pointer, info)
        return {
            "operation": self.operation,
            "id": bytes(ffi.buffer(info.id)).hex(),
            "set": ffi.string(info.params.name).decode(),
            "security_bits": info.params.security_bits,
            "shape": self.shape,
            "output_shape": self.output_shape,
            "input_group": self.input_group,
            **{
                name: getattr(info, name)
                for name in (
                    "inputs outputs map_inputs map_outputs taps layout babies products units packed_rows "
                    "weight_bits input_bits b_bits reply_a_bits reply_b_bits reply_ring has_bias "
                    "input_scale output_scale delta automorphisms evaluation_key_bytes upload_bytes download_bytes "
                    "predicted_error output_max has_weights "
                    "circuit_rows levels activations approximation_error input_low input_high"
                ).split()
            },
        }

    def activations(self):
        """Of a circuit: what its functions and products became, each a dict."""
        found = []
        for i in range(self.info()["activations"]):
            one = ffi.new("hemi_activation_info *")
            _call(lib.hemi_module_get_activation, self.pointer, i, one)
            name = ffi.string(one.name).decode("utf-8", "replace")
            found.append({"name": name, "range": (one.low, one.high), "degree": one.degree, "levels": one.levels, "size": one.size})
        return found

    def fits(self, shape):
        """(rows or samples, shape of the result) for an input of this shape; None if the module does not take it. Rows may have any
        dimensions before them; samples are counted by the first dimension, or one comes without it."""
        shape = tuple(shape)
        if self.of_rows:
            if not shape or shape[-1] != self.inputs:
                return None
            rows = 1
            for n in shape[:-1]:
                rows *= n
            return rows, shape[:-1] + (self.outputs,)
        if shape[1:] == self.shape[1:]:
            return shape[0], shape[:1] + self.output_shape[1:]
        if shape == self.shape[1:]:
            return 1, self.output_shape[1:]
        return None

    def takes(self):
        """What fits() accepts, in words."""
        if self.of_rows:
            return f"{self.inputs} features in the last dimension of its input, whatever the dimensions before it"
        return f"samples of the shape it was compiled for, {self.sample()}"

    def sample(self):
        return " x ".join(["N", *map(str, self.shape[1:])])

    def shares_with(self):
        """What modules that one encryption of an input serves have in common; None for one that was not compiled for that."""
        if self.input_group is None:
            return None
        info = self.info()
        return tuple(info[name] for name in "input_group set inputs layout b_bits delta input_bits input_scale".split())

    @staticmethod
    def _options(set=None, input_group=None, progress=None, **numbers):
        options = ffi.new("hemi_compile_options *")
        for name, value in numbers.items():
            setattr(options, name, value or 0)
        keep = []
        if input_group is not None:
            keep.append(ffi.new("uint8_t[]", input_group))
            options.input_group = keep[-1]
        if set is not None:
            keep.append(ffi.new("char[]", set.encode()))
            options.set = keep[-1]
        if progress is not None:
            keep.append(ffi.new_handle(progress))
            options.progress, options.progress_context = lib.hemi_py_progress, keep[-1]
        return options, keep

    @classmethod
    def compile(cls, onnx, x, shape, **options):
        """onnx: a buffer; x: the address of float32 calibration data of that shape; options: those of hemi_compile_options."""
        options, keep = cls._options(**options)
        out = ffi.new("hemi_module **")
        with ffi.from_buffer(onnx) as data:
            _call(lib.hemi_module_compile, out, data, len(data), _const_floats(x), list(shape), len(shape), options)
        del keep
        return cls(out[0])

    @classmethod
    def from_linear(cls, weight, bias, outputs, inputs, x, shape, **options):
        """weight, bias (or None): addresses of float32 matrices, which are only read."""
        options, keep = cls._options(**options)
        out = ffi.new("hemi_module **")
        bias = NULL if bias is None else _const_floats(bias)
        _call(
            lib.hemi_module_from_linear, out, _const_floats(weight), bias, outputs, inputs, _const_floats(x), list(shape), len(shape), options
        )
        del keep
        return cls(out[0])

    @classmethod
    def open(cls, folder, with_weights):
        out = ffi.new("hemi_module **")
        _call(lib.hemi_module_open, out, _bytes(folder), with_weights)
        return cls(out[0])

    @classmethod
    def from_client_json(cls, json):
        out = ffi.new("hemi_module **")
        _call(lib.hemi_module_from_client_json, out, json, len(json))
        return cls(out[0])

    def client_json(self):
        return ffi.string(lib.hemi_module_client_json(self.pointer))

    def save(self, folder):
        _call(lib.hemi_module_save, self.pointer, _bytes(folder))

    def run_clear(self, x, rows, y, noise):
        _call(lib.hemi_module_run_clear, self.pointer, _const_floats(x), rows, _floats(y), noise)


class Keys(OneProcess):
    """Secret keys (hemi_keys): in memory, or kept in a folder. May be used from several threads."""

    what = "an object that holds secret keys"

    def __init__(self, folder=None, passphrase=None):
        super().__init__()
        out, options = ffi.new("hemi_keys **"), ffi.new("hemi_keys_options *")
        secret = None if passphrase is None else bytearray(passphrase.encode()) + b"\0"
        keep = [NULL if folder is None else ffi.new("char[]", os.fsencode(folder)), NULL if secret is None else ffi.from_buffer(secret)]
        options.folder, options.passphrase = keep[0], ffi.cast("char *", keep[1])
        try:
            _call(lib.hemi_keys_new_with, out, options)
        finally:
            if secret is not None:
                secret[:] = bytes(len(secret))
        self._pointer = ffi.gc(out[0], lib.hemi_keys_free)

    @property
    def pointer(self):
        self.check_process()
        return self._pointer

    def generate(self, module, force=False):
        _call(lib.hemi_keys_generate, self.pointer, module.params, force)

    def evaluation(self, modules):
        """The evaluation keys that these modules need, as bytes."""
        array = ffi.new("hemi_module *[]", [m.pointer for m in modules])
        out, length = ffi.new("uint8_t **"), ffi.new("size_t *")
        _call(lib.hemi_keys_evaluation, self.pointer, ffi.cast("const hemi_module *const *", array), len(modules), out, length)
        try:
            return bytes(ffi.buffer(out[0], length[0]))
        finally:
            lib.hemi_bytes_release(out[0])


class Pending:
    """A request (bytes) and what is needed to read the reply to it."""

    def __init__(self, module, keys, x, rows):
        self.module, self.keys, self.rows = module, keys, rows
        out, request, length = ffi.new("hemi_pending **"), ffi.new("uint8_t **"), ffi.new("size_t *")
        _call(lib.hemi_encrypt, module.pointer, keys.pointer, _const_floats(x), rows, out, request, length)
        self._pointer = ffi.gc(out[0], lib.hemi_pending_free)
        self.request = bytes(ffi.buffer(request[0], length[0]))
        lib.hemi_bytes_release(request[0])

    def decrypt(self, reply, y):
        """Returns how many rows are out of the range that the module was calibrated for."""
        with ffi.from_buffer(reply) as data:
            _call(lib.hemi_decrypt, self.module.pointer, self.keys.pointer, self._pointer, data, len(data), _floats(y))
        return lib.hemi_pending_out_of_range(self._pointer)

    def __reduce_ex__(self, protocol):
        raise TypeError("a pending request can be neither pickled nor copied: it holds secrets")


class ServerKeys:
    """A client's evaluation keys, checked and expanded (hemi_server_keys)."""

    def __init__(self, data):
        out = ffi.new("hemi_server_keys **")
        with ffi.from_buffer(data) as view:
            _call(lib.hemi_server_keys_new, out, view, len(view))
        self.pointer = ffi.gc(out[0], lib.hemi_server_keys_free)
        self.id = bytes(ffi.buffer(lib.hemi_server_keys_id(out[0]), 32)).hex()
        self.memory = lib.hemi_server_keys_bytes(out[0])


class Evaluator:
    """A module made ready to be evaluated on encrypted inputs (hemi_evaluator)."""

    def __init__(self, module, threads=0):
        out = ffi.new("hemi_evaluator **")
        _call(lib.hemi_evaluator_new, out, module.pointer, threads)
        self.pointer = ffi.gc(out[0], lib.hemi_evaluator_free)
        self.memory = lib.hemi_evaluator_bytes(out[0])

    def run(self, request, keys, threads=0):
        """From request bytes to reply bytes."""
        modules = ffi.new("hemi_evaluator *[1]", [self.pointer])
        out, length = ffi.new("uint8_t **"), ffi.new("size_t *")
        with ffi.from_buffer(request) as data:
            _call(
                lib.hemi_evaluate,
                ffi.cast("const hemi_evaluator *const *", modules),
                1,
                keys.pointer,
                data,
                len(data),
                threads,
                out,
                length,
            )
        try:
            return bytes(ffi.buffer(out[0], length[0]))
        finally:
            lib.hemi_bytes_free(out[0])


def warn_out_of_range(name, module, count, rows):
    """Says, where count is not 0, that so many of the rows have results that are not to be relied on."""
    if count:
        what = "row" if module.of_rows else "sample"
        low, high = module.input_range
        message = (
            f"{name}: {count} of {rows} {what}{'s' if rows != 1 else ''} lie outside of the range that it was calibrated for (inputs from "
            f"{low:.4g} to {high:.4g}, and what follows from such): their results are not to be relied on. Compile it with inputs "
            "like these, or with a larger range_margin"
        )
        errors.warn(errors.HemiRangeWarning(message))


STATS = (
    "encrypt_ms network_ms server_ms decrypt_ms upload_bytes download_bytes evaluation_key_bytes prepared_rows rows_out_of_range"
).split()
PREPARE = {None: 0, "auto": 0, True: 1, "on": 1, False: -1, "off": -1}


class Connection(OneProcess):
    """A connection to a server and the remote modules opened on it. One call at a time."""

    what = "a connection to a server"
    _client = None

    def __init__(self, url, keys, connect_timeout=None, timeout=None, prepare=None, prepare_rows=0, progress=None, token=None, ca_file=None,
                 allow_plain_token=False):
        super().__init__()
        token = os.environ.get("HEMI_TOKEN") if token is None else token
        keep = [NULL if token is None else ffi.new("char[]", _bytes(token)), NULL if ca_file is None else ffi.new("char[]", os.fsencode(ca_file))]
        self._keys, self._remotes, self._modules, self.progress = keys, {}, [], progress
        options = ffi.new("hemi_client_options *")
        if progress is not None:
            self._handle = ffi.new_handle(progress)
            options.progress, options.progress_context = lib.hemi_py_progress, self._handle
        options.connect_timeout_ms = int((connect_timeout or 0) * 1000)
        options.timeout_ms = int((timeout or 0) * 1000)
        if prepare not in PREPARE:
            raise errors.HemiArgumentError(f"prepare is None, True or False, which are the same as 'auto', 'on' or 'off'; got {prepare!r}")
        options.prepare = PREPARE[prepare]
        options.prepare_rows = prepare_rows or 0
        options.token, options.ca_file, options.allow_plain_token = keep[0], keep[1], allow_plain_token
        out = ffi.new("hemi_client **")
        _call(lib.hemi_client_new, out, _bytes(url), keys.pointer, options)
        self._client = out[0]

    def open(self, key, model, name, module=None, shape=None):
        """Opens a module under `key`; its description is fetched where none is given. Returns that description."""
        self.check_process()
        out = ffi.new("hemi_remote **")
        if module is None:
            _call(lib.hemi_remote_open, out, self._client, model.encode(), name.encode(), _bytes(shape))
        else:
            _call(lib.hemi_remote_open_with, out, self._client, model.encode(), name.encode(), module.pointer)
            self._modules.append(module)  # must outlive the remote
        self._remotes[key] = out[0]
        if module is None:
            module = Module.from_client_json(ffi.string(lib.hemi_module_client_json(lib.hemi_remote_module(out[0]))))
        return module

    def models(self, model):
        """What the server says of a model: [{"name", "shape", ...}] of its compiled modules."""
        self.check_process()
        out, length = ffi.new("uint8_t **"), ffi.new("size_t *")
        _call(lib.hemi_client_list, self._client, model.encode(), out, length)
        try:
            return json.loads(bytes(ffi.buffer(out[0], length[0])))["modules"]
        finally:
            lib.hemi_bytes_release(out[0])

    def __contains__(self, key):
        return key in self._remotes

    def call(self, key, x, rows, y):
        """One request. Returns the call's figures."""
        self.check_process()
        stats = ffi.new("hemi_call_stats *")
        _call(lib.hemi_remote_call, self._remotes[key], _const_floats(x), rows, _floats(y), stats)
        return stats

    def prepare(self, key, rows):
        """Prepares the coming calls of a module, and waits for it. Returns how many rows are prepared."""
        self.check_process()
        _call(lib.hemi_remote_prepare, self._remotes[key], rows)
        return lib.hemi_remote_prepared(self._remotes[key])

    def call_many(self, keys, x, rows, ys):
        """One request for several modules that get the same input. ys: where the results of each go."""
        self.check_process()
        stats = ffi.new("hemi_call_stats *")
        remotes = ffi.new("hemi_remote *[]", [self._remotes[key] for key in keys])
        results = ffi.new("float *[]", [_floats(y) for y in ys])
        _call(
            lib.hemi_remote_call_many,
            ffi.cast("hemi_remote *const *", remotes),
            len(keys),
            _const_floats(x),
            rows,
            ffi.cast("float *const *", results),
            stats,
        )
        return stats

    def close(self):
        client, self._client = self._client, None
        remotes, self._remotes = self._remotes, {}
        if client is None or self._pid != os.getpid():
            return  # a forked child leaves its parent's connection alone
        for remote in remotes.values():
            lib.hemi_remote_free(remote)
        lib.hemi_client_free(client)

    def __del__(self):
        if lib is not None:
            self.close()


class HTTPServer(OneProcess):
    """The server in this process (hemi_http_server). Without `tenants` (a file of `hemi tenants`) or a `store` everyone who reaches it may use it, so that it
    listens on an address of this machine alone."""

    what = "a server"
    _server = None

    def __init__(self, folder, address=None, port=8000, threads=0, max_keys_bytes=0, max_request_rows=0, quiet=True, tenants=None, store=None,
                 tls_certificate=None, tls_key=None):
        super().__init__()
        keep = [ffi.new("char[]", os.fsencode(folder)), NULL if address is None else ffi.new("char[]", address.encode())]
        options = ffi.new("hemi_http_options *")
        for name, value in (("tenants", tenants), ("store", store), ("tls_certificate", tls_certificate), ("tls_key", tls_key)):
            if value is not None:
                keep.append(ffi.new("char[]", os.fsencode(value)))
                setattr(options, name, keep[-1])
        options.no_auth = tenants is None and store is None
        self._scheme = "http" if tls_certificate is None else "https"
        options.folder, options.address, options.port, options.threads = keep[0], keep[1], port, threads
        options.max_keys_bytes, options.max_request_rows, options.quiet = max_keys_bytes, max_request_rows, quiet
        out = ffi.new("hemi_http_server **")
        _call(lib.hemi_http_server_start, out, options)
        self._server, self._keep = out[0], keep
        self.address, self.port = address or "127.0.0.1", lib.hemi_http_server_port(out[0])

    @property
    def url(self):
        return f"{self._scheme}://{self.address}:{self.port}"

    def stop(self):
        """Finishes the requests under way."""
        server, self._server = self._server, None
        if server is not None and self._pid == os.getpid():
            lib.hemi_http_server_stop(server)

    def wait(self):
        """Serves until interrupted, then stops."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def __del__(self):
        if lib is not None:
            self.stop()

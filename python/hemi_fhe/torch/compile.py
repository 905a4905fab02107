"""From float modules to compiled ones."""

import contextlib
import secrets
import sys
import threading
from pathlib import Path

import torch
from torch import nn

from .. import _native
from ..common.utils import HybridFHEMode
from ..deployment import tuple_to_underscore_str
from ..errors import HemiArgumentError, HemiShapeError, HemiStateError, HemiUnsupportedError
from ._export import to_onnx, wipe
from ._tensors import choose, run_rows

__all__ = ["QuantizedModule", "compile_torch_model"]

ROWS_AT_ONCE = 512  # of one encrypted request made in this process


class QuantizedModule:
    """A compiled module with its weights: owner's side. Takes tensors or arrays and gives back the same kind."""

    def __init__(self, natives):
        self._natives = natives  # one for rows, or one for each shape of samples
        self._lock = threading.Lock()
        self._engines = {}  # native -> (keys, evaluator, server keys), made when first needed

    @property
    def _native(self):
        return self._natives[0]

    @property
    def info(self):
        """What `hemi inspect` prints: shapes, parameter set, security, sizes, predicted error. Of the first shape, if there are
        several; `infos` has all."""
        return self._native.info()

    @property
    def infos(self):
        return {native.shape: native.info() for native in self._natives}

    @property
    def input_shapes(self):
        """Those of the calibration inputs, the first dimension set to 1."""
        return [native.shape for native in self._natives]

    @property
    def of_rows(self):
        return self._native.of_rows

    def shares_with(self):
        """What compiled modules that one encryption of an input serves have in common; None for others."""
        return self._native.shares_with()

    @property
    def input_shape(self):
        """That of the calibration input, its first dimension set to 1."""
        return self._native.shape

    def forward(self, *x, fhe="disable", keys=None):
        """fhe: "disable" (quantised, in the clear), "simulate" (the same with the predicted noise) or "execute"."""
        if len(x) != 1:
            raise HemiUnsupportedError(f"a compiled module takes one input; got {len(x)}")
        mode = HybridFHEMode.of(fhe)
        x = x[0]
        given_tensor = isinstance(x, torch.Tensor)
        tensor = x if given_tensor else torch.as_tensor(x)
        native = choose(self._natives, tensor, "the compiled module")
        if mode is HybridFHEMode.EXECUTE:
            function = self._execution(native, keys)
        elif mode in (HybridFHEMode.DISABLE, HybridFHEMode.SIMULATE):
            noise = mode is HybridFHEMode.SIMULATE
            function = lambda a, rows, b: native.run_clear(a, rows, b, noise)  # noqa: E731
        else:
            raise HemiArgumentError(f"a compiled module runs with fhe='disable', 'simulate' or 'execute', not {mode.value!r}")
        y = run_rows(tensor, native, "the compiled module", function)
        return y if given_tensor else y.numpy()

    __call__ = forward

    def _execution(self, native, keys=None):
        with self._lock:
            engine = self._engines.get(native)
            if engine is None or (keys is not None and engine[0] is not keys) or not engine[0].usable():
                keys = keys or _native.Keys()
                evaluator = engine[1] if engine else _native.Evaluator(native)
                engine = self._engines[native] = (keys, evaluator, _native.ServerKeys(keys.evaluation([native])))
        keys, evaluator, server_keys = engine

        def run(x, rows, y):
            for first in range(0, rows, ROWS_AT_ONCE):
                count = min(ROWS_AT_ONCE, rows - first)
                pending = _native.Pending(native, keys, x + 4 * first * native.inputs, count)
                pending.decrypt(evaluator.run(pending.request, server_keys), y + 4 * first * native.outputs)

        return run

    def save(self, folder):
        """Writes client.zip and server.zip to the folder, each by rename; of several shapes each to a folder of its own there."""
        for native in self._natives:
            native.save(folder if len(self._natives) == 1 else Path(folder) / tuple_to_underscore_str(native.shape))

    def save_shapes(self, folder):
        """The same, always below folder/<shape>."""
        for native in self._natives:
            native.save(Path(folder) / tuple_to_underscore_str(native.shape))

    def clear(self):
        """Frees the weights in every form this object has them."""
        with self._lock:
            self._engines = {}
            for native in self._natives:
                native.clear()

    @property
    def cleared(self):
        return not self._native.has_weights

    def __reduce_ex__(self, protocol):
        raise TypeError("a compiled module can be neither pickled nor copied: save it to a folder")


def bits_of(n_bits):
    """(weight bits, input bits) from an int, a dict or None; 0 leaves the choice to the compiler."""
    if n_bits is None:
        return 0, 0
    if isinstance(n_bits, dict):
        known = {"op_weights": 0, "weights": 0, "op_inputs": 1, "inputs": 1, "model_inputs": 1, "model_outputs": None}
        bits = [0, 0]
        for key, value in n_bits.items():
            if key not in known:
                raise HemiArgumentError(f"n_bits has the keys {', '.join(map(repr, known))}; got {key!r}")
            if known[key] is not None and value is not None:
                bits[known[key]] = max(bits[known[key]], int(value))
        return tuple(bits)
    if isinstance(n_bits, bool) or int(n_bits) != n_bits:
        raise HemiArgumentError(f"n_bits is an int, a dict or None, not {n_bits!r}")
    return int(n_bits), 0  # the bits of the inputs are free: they cost neither time, nor bytes, nor accuracy


def options_of(configuration):
    """Keyword arguments for the compiler from a configuration: None or a dict with layout, set, b_bits."""
    if configuration is None:
        return {}
    if not isinstance(configuration, dict) or set(configuration) - {"layout", "set", "b_bits"}:
        raise HemiArgumentError(
            "configuration is None or a dict with any of the keys 'layout' (S, a power of two), 'set' (a parameter set) and "
            f"'b_bits'; got {configuration!r}"
        )
    return dict(configuration)


def show_progress(what, done, total):
    print(f"\r  {what} {done}/{total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def is_conv1d(module):
    """Conv1D of Hugging Face's transformers: a Linear whose weight is inputs x outputs."""
    return any(c.__name__ == "Conv1D" and c.__module__.startswith("transformers.") for c in type(module).__mro__)


def is_matrix(module):
    """A Linear or Conv1D whose matrix the compiler can read where it is. The exporter would leave copies of it in freed memory."""
    if type(module) is not torch.nn.Linear and not (is_conv1d(module) and type(module).__name__ == "Conv1D"):
        return False
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    tensors = [module.weight] if module.bias is None else [module.weight, module.bias]
    return all(type(t) in (torch.nn.Parameter, torch.Tensor) and t.is_floating_point() and not t.is_meta for t in tensors)


@contextlib.contextmanager
def plain_matrix(tensor, transposed=False):
    """A matrix as contiguous float32 in this machine's memory. What had to be copied for that is overwritten at the end."""
    tensor = tensor.detach()
    view = tensor.T if transposed else tensor
    if view.dtype is torch.float32 and view.device.type == "cpu" and view.is_contiguous():
        yield view
        return
    copy = torch.empty(view.shape, dtype=torch.float32)
    copy[None].copy_(view[None])  # of three dimensions: for two, torch transposes block by block in a buffer, which it does not wipe
    try:
        yield copy
    finally:
        copy.zero_()


def is_of_rows(module):
    """Whether a module is known to work on the last dimension alone. What it becomes is the compiler's decision all the same: this
    only chooses what it is exported for, two dimensions, for which a Linear is one node."""
    if isinstance(module, torch.nn.Sequential):
        return all(map(is_of_rows, module))
    return isinstance(module, (torch.nn.Linear, torch.nn.Identity, torch.nn.Dropout)) or is_conv1d(module)


WINDOWS = {
    2: (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d),
    3: (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.BatchNorm2d),
}  # by the dimensions of one sample


def sample_rank(module):
    """Dimensions of a sample, for a module of convolutions; None for others."""
    return next((rank for m in module.modules() for rank, kinds in WINDOWS.items() if isinstance(m, kinds)), None)


def by_shape(module, records, name):
    """[(all inputs of one shape, in one tensor; that shape)]; the first dimension counts rows or samples, and may differ."""
    rank = sample_rank(module) or 1
    records = [x.unsqueeze(0) if x.dim() == rank else x for x in records]
    if not records:
        raise HemiStateError(f"{name} was not called by the model for these inputs: it cannot be calibrated")
    shapes = {}
    for x in records:
        shapes.setdefault(tuple(x.shape[1:]), []).append(x)
    if () in shapes or not all(sum(x.numel() for x in group) for group in shapes.values()):
        raise HemiShapeError(f"{name} got inputs of shapes {sorted({tuple(x.shape) for x in records})}: it needs rows of one length")
    return [(torch.cat(group), shape) for shape, group in shapes.items()]


def compile_records(module, records, n_bits, configuration=None, verbose=0, name="the module", **more):
    """Compiles a float module for the inputs (tensors) it was called with. more: options of the compiler."""
    groups = by_shape(module, records, name)
    weight_bits, input_bits = bits_of(n_bits)
    options = {"weight_bits": weight_bits, "input_bits": input_bits, **options_of(configuration), **more}
    options["progress"] = show_progress if verbose else None
    try:
        x, shape = groups[0]
        first = _compiled(module, x, (len(x), *shape), options)
        if len(groups) == 1:
            return QuantizedModule([first])
        if not first.of_rows:
            return QuantizedModule([first] + [_compiled(module, x, (len(x), *shape), options) for x, shape in groups[1:]])
        return QuantizedModule([_compiled_for_all_rows(module, groups, name, options)])
    finally:
        for x, _ in groups:
            x.zero_()  # cat has made a copy


def _compiled_for_all_rows(module, groups, name, options):
    lengths = {shape[-1] for _, shape in groups}
    if len(lengths) != 1:
        raise HemiShapeError(f"{name} got inputs of shapes {sorted(('N', *s) for _, s in groups)}: it needs rows of one length")
    inputs = lengths.pop()
    rows = torch.cat([x.reshape(-1, inputs) for x, _ in groups])
    try:
        return _compiled(module, rows, tuple(rows.shape), options)
    finally:
        rows.zero_()


def _compiled(module, x, shape, options):
    if is_matrix(module):
        return _from_matrix(module.weight, is_conv1d(module), module.bias, x, shape, options)
    onnx = to_onnx(module, (1, shape[-1]) if is_of_rows(module) else (1, *shape[1:]))
    try:
        return _native.Module.compile(onnx, x.data_ptr(), shape, **options)
    finally:
        wipe(onnx)


def _from_matrix(weight, transposed, bias, x, shape, options):
    with contextlib.ExitStack() as stack:
        weight = stack.enter_context(plain_matrix(weight, transposed))
        if bias is not None:
            bias = stack.enter_context(plain_matrix(bias)).data_ptr()
        return _native.Module.from_linear(weight.data_ptr(), bias, *weight.shape, x.data_ptr(), shape, **options)


GRADIENT_ROWS = 64


def compile_transposed(module, n_bits, configuration=None, verbose=0, name="the module"):
    """The product with the transposed matrix, for gradients. They are scaled row by row, so that any Gaussian rows calibrate it."""
    if not is_matrix(module):
        raise HemiUnsupportedError(
            f"{name} is a {type(module).__name__}: backward=True takes Linear and Conv1D modules. Make those in it remote one by one"
        )
    weight_bits, input_bits = bits_of(n_bits)
    options = {"weight_bits": weight_bits, "input_bits": input_bits, **options_of(configuration)}
    options.pop("layout", None)  # was chosen for the other shape
    options["progress"] = show_progress if verbose else None
    outputs = module.weight.shape[1 if is_conv1d(module) else 0]
    x = torch.randn(GRADIENT_ROWS, outputs, generator=torch.Generator().manual_seed(0))
    return QuantizedModule([_from_matrix(module.weight, not is_conv1d(module), None, x, tuple(x.shape), options)])


DELTA_RATIO = 8  # a module that would lose more than three bits of accuracy to its siblings stays alone


def compile_sharing(members, n_bits, configuration=None, verbose=0):
    """{name: (module, records)} -> {name: QuantizedModule}, for modules that got the same inputs: compiled once for what each would
    have by itself, then again with what they must have in common for one encryption to serve them all."""
    compiled = {
        name: compile_records(module, records, n_bits, configuration, verbose, f"module {name!r}") for name, (module, records) in members.items()
    }
    if len(compiled) < 2 or not all(c.of_rows for c in compiled.values()):
        return compiled
    infos = {name: c.info for name, c in compiled.items()}
    least = min(info["delta"] for info in infos.values())
    together = [name for name in members if infos[name]["delta"] <= DELTA_RATIO * least]
    if len(together) < 2:
        return compiled
    largest = infos[max(together, key=lambda name: infos[name]["outputs"])]
    common = {
        "layout": largest["layout"],
        "b_bits": max(infos[name]["b_bits"] for name in together),
        "delta_max": least,
        "input_group": secrets.token_bytes(_native.ID_BYTES),
    }
    # equally many babies: the server rotates the input once for all of them
    babies = min([infos[name]["babies"] for name in together if infos[name]["babies"] > 1], default=0)
    again = {}
    try:
        for name in together:
            module, records = members[name]
            own = {"weight_bits": infos[name]["weight_bits"], "babies": babies if infos[name]["babies"] > 1 else 0}
            again[name] = compile_records(module, records, n_bits, configuration, verbose, f"module {name!r}", **{**common, **own})
    except (HemiArgumentError, HemiShapeError):
        return compiled  # what suits one does not suit another
    if len({c.shares_with() for c in again.values()}) == 1:
        compiled.update(again)
    return compiled


def compile_torch_model(
    torch_model,
    torch_inputset,
    import_qat=False,
    configuration=None,
    artifacts=None,
    show_mlir=False,
    n_bits=8,
    rounding_threshold_bits=None,
    p_error=None,
    global_p_error=None,
    verbose=False,
    inputs_encryption_status=None,
    reduce_sum_copy=False,
    device="cpu",
):
    """A module of linear layers, whole, as one compiled module. See docs/python.md for the arguments without effect."""
    if not isinstance(torch_model, torch.nn.Module):
        raise TypeError(f"torch_model is a torch.nn.Module, not {type(torch_model).__name__}")
    if isinstance(torch_inputset, (tuple, list)):
        if len(torch_inputset) != 1:
            raise HemiUnsupportedError(f"a compiled module takes one input; got {len(torch_inputset)}")
        torch_inputset = torch_inputset[0]
    x = torch.as_tensor(torch_inputset).detach().to("cpu", torch.float32)
    return compile_records(torch_model, [x], n_bits, configuration, verbose, type(torch_model).__name__)

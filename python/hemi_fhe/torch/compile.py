"""From float modules to compiled ones."""

import contextlib
import os
import secrets
from pathlib import Path

import torch
from torch import nn

from .. import _native
from .._progress import Bar
from ..errors import HemiAccuracyWarning, HemiArgumentError, HemiError, HemiShapeError, HemiStateError, HemiUnsupportedError, warn
from ._brevitas import has_quantisers, to_qonnx
from ._export import to_onnx, wipe
from ._quantized import FHECircuit, QuantizedModule

__all__ = ["FHECircuit", "QuantizedModule", "compile_brevitas_qat_model", "compile_onnx_model", "compile_torch_model"]

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


OPTIONS = {
    "layout": "S, a power of two",
    "set": "a parameter set",
    "b_bits": "of an uploaded coefficient",
    "tolerance": "of the outputs' error by polynomials, relative",
    "range_margin": "over what the calibration data reaches",
    "degree_max": "of polynomials",
    "rows": "samples of a ciphertext, a power of two",
    "force_circuit": "linear modules too",
}


def options_of(configuration, **more):
    """Keyword arguments for the compiler from a configuration: None or a dict with keys of OPTIONS; and from others, where not None."""
    if configuration is not None and (not isinstance(configuration, dict) or set(configuration) - set(OPTIONS)):
        known = ", ".join(f"{name!r} ({meaning})" for name, meaning in OPTIONS.items())
        raise HemiArgumentError(f"configuration is None or a dict with any of the keys {known}; got {configuration!r}")
    return {**(configuration or {}), **{name: value for name, value in more.items() if value is not None}}


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


EACH_NUMBER = (nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
               nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.LogSigmoid)  # fmt: skip


def is_of_rows(module):
    """Whether a module is known to work on the last dimension alone. What it becomes is the compiler's decision all the same: this
    only chooses what it is exported for, two dimensions, for which a Linear is one node."""
    if isinstance(module, nn.Sequential):
        return all(map(is_of_rows, module))
    return isinstance(module, (nn.Linear, *EACH_NUMBER)) or is_conv1d(module)


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
    options["progress"] = bar = Bar(name) if verbose else None
    try:
        x, shape = groups[0]
        natives = [_compiled(module, x, (len(x), *shape), options, name)]
        if len(groups) > 1 and natives[0].of_rows:
            natives = [_compiled_for_all_rows(module, groups, name, options)]
        elif len(groups) > 1:
            natives += [_compiled(module, x, (len(x), *shape), options, name) for x, shape in groups[1:]]
    finally:
        for x, _ in groups:
            x.zero_()  # cat has made a copy
        if bar is not None:
            bar.close()
    compiled = QuantizedModule(natives, name, verbose)
    if verbose and compiled.is_circuit:
        compiled.show()
    return compiled


def _compiled_for_all_rows(module, groups, name, options):
    lengths = {shape[-1] for _, shape in groups}
    if len(lengths) != 1:
        raise HemiShapeError(f"{name} got inputs of shapes {sorted(('N', *s) for _, s in groups)}: it needs rows of one length")
    inputs = lengths.pop()
    rows = torch.cat([x.reshape(-1, inputs) for x, _ in groups])
    try:
        return _compiled(module, rows, tuple(rows.shape), options, name)
    finally:
        rows.zero_()


def _compiled(module, x, shape, options, name):
    try:
        if is_matrix(module) and not options.get("force_circuit"):
            return _from_matrix(module.weight, is_conv1d(module), module.bias, x, shape, options)
        example = (1, shape[-1]) if is_of_rows(module) else (1, *shape[1:])
        quantisers = has_quantisers(module)
        onnx = to_qonnx(module, example) if quantisers else to_onnx(module, example)
        try:
            return _from_onnx(onnx, x, shape, options, name, quantisers)
        finally:
            wipe(onnx)
    except HemiError as error:
        raise type(error)(f"{name}: {error.message}", error.status) from error


STEPS = (None, 0.06, 0.09, 0.13, 0.2, 0.3, 0.4)  # of the tolerance: the compiler's own first
WORTH = 0.8  # of the levels: what the next step must save to be taken


def _from_onnx(onnx, x, shape, options, name, quantisers):
    """quantisers: activations may be rounded to few bits. Polynomials follow the function behind the steps: what they cannot be is as exact as
    the rounding. So the tolerance, unless it was given, is the least of STEPS that can be met, or the next one: just above what can be met at all,
    degrees are many times as high."""
    if not quantisers or options.get("tolerance") is not None:
        return _native.Module.compile(onnx, x.data_ptr(), shape, **options)
    best = least = None
    for tolerance in STEPS:
        try:
            native = _native.Module.compile(onnx, x.data_ptr(), shape, **{**options, "tolerance": tolerance})
        except HemiUnsupportedError as error:
            if best is not None:
                break
            if tolerance == STEPS[-1] or "tolerance" not in error.message:
                raise
            continue
        if best is None:
            best, least = native, tolerance
            if native.info()["operation"] == "circuit":
                continue
        elif native.info()["levels"] <= WORTH * best.info()["levels"]:
            best, least = native, tolerance
        break
    if least is not None:
        message = (
            f"{name} rounds activations to few bits. On the server they are smooth polynomials, which differ from such steps: results "
            f"by {100 * best.info()['approximation_error']:.2g} % (root mean square) from the rounded ones on the calibration data. "
            "tolerance=... sets a limit"
        )
        warn(HemiAccuracyWarning(message))
    return best


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
    options = {key: value for key, value in options.items() if key not in ("layout", "force_circuit")}  # of the other shape
    options["progress"] = Bar(name) if verbose else None
    outputs = module.weight.shape[1 if is_conv1d(module) else 0]
    x = torch.randn(GRADIENT_ROWS, outputs, generator=torch.Generator().manual_seed(0))
    return QuantizedModule([_from_matrix(module.weight, not is_conv1d(module), None, x, tuple(x.shape), options)], name, verbose)


DELTA_RATIO = 8  # a module that would lose more than three bits of accuracy to its siblings stays alone


def compile_sharing(members, n_bits, verbose=0):
    """{name: (module, records, configuration)} -> {name: QuantizedModule}, for modules that got the same inputs: compiled once for what each
    would have by itself, then again, where they are linear, with what they must have in common for one encryption to serve them all."""

    def compile_one(name, **more):
        module, records, configuration = members[name]
        return compile_records(module, records, n_bits, configuration, verbose, f"module {name!r}", **more)

    compiled = {name: compile_one(name) for name in members}
    infos = {name: c.info for name, c in compiled.items() if c.of_rows and not c.is_circuit}
    least = min([info["delta"] for info in infos.values()], default=0)
    together = [name for name in infos if infos[name]["delta"] <= DELTA_RATIO * least]
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
            own = {"weight_bits": infos[name]["weight_bits"], "babies": babies if infos[name]["babies"] > 1 else 0}
            again[name] = compile_one(name, **{**common, **own})
    except (HemiArgumentError, HemiShapeError):
        return compiled  # what suits one does not suit another
    if len({c.shares_with() for c in again.values()}) == 1:
        compiled.update(again)
    return compiled


# ---- the reference system's functions

def _one_input(inputset):
    """The calibration data, as a float32 tensor."""
    if isinstance(inputset, (tuple, list)):
        if len(inputset) != 1:
            raise HemiUnsupportedError(f"a compiled module takes one input; got {len(inputset)}")
        inputset = inputset[0]
    return torch.as_tensor(inputset).detach().to("cpu", torch.float32)


def _samples(inputset):
    """The same, one after another in memory."""
    x = _one_input(inputset)
    if x.dim() == 0 or x.numel() == 0:
        raise HemiShapeError(f"the calibration data has the shape {tuple(x.shape)}: its first dimension counts samples, at least one")
    return x.contiguous()


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
    *,
    tolerance=None,
    range_margin=None,
    degree_max=None,
    parameter_set=None,
    rows=None,
):
    """A module, whole, as one compiled module. torch_inputset: inputs like those it will get. See docs/python.md for the arguments, and for
    those without effect."""
    if not isinstance(torch_model, nn.Module):
        raise TypeError(f"torch_model is a torch.nn.Module, not {type(torch_model).__name__}")
    configuration = options_of(
        configuration, tolerance=tolerance, range_margin=range_margin, degree_max=degree_max, set=parameter_set, rows=rows
    )
    return compile_records(torch_model, [_one_input(torch_inputset)], n_bits, configuration, verbose, type(torch_model).__name__)


def _onnx_bytes(model):
    """A buffer with an ONNX file: from its bytes, a path, or an onnx.ModelProto."""
    if isinstance(model, (str, os.PathLike)):
        return memoryview(Path(model).read_bytes())
    if hasattr(model, "SerializeToString"):
        return memoryview(model.SerializeToString())
    try:
        return memoryview(model).cast("B")
    except TypeError:
        raise TypeError(f"onnx_model is an onnx.ModelProto, a path or bytes, not {type(model).__name__}") from None


def compile_onnx_model(
    onnx_model,
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
    *,
    tolerance=None,
    range_margin=None,
    degree_max=None,
    parameter_set=None,
    rows=None,
):
    """The same of an ONNX model: an onnx.ModelProto, the path of a file, or its bytes. import_qat: with quantisers (QONNX), which say what
    weights and activations are rounded to; n_bits is for what has none."""
    configuration = options_of(
        configuration, tolerance=tolerance, range_margin=range_margin, degree_max=degree_max, set=parameter_set, rows=rows
    )
    return _compile_onnx(_onnx_bytes(onnx_model), _samples(torch_inputset), n_bits, configuration, verbose, "the ONNX model", import_qat)


def _compile_onnx(onnx, x, n_bits, configuration, verbose, name, quantisers):
    weight_bits, input_bits = bits_of(n_bits)
    bar = Bar(name) if verbose else None
    options = {"weight_bits": weight_bits, "input_bits": input_bits, **configuration, "progress": bar}
    try:
        compiled = QuantizedModule([_from_onnx(onnx, x, tuple(x.shape), options, name, quantisers)], name, verbose)
    finally:
        if bar is not None:
            bar.close()
    if verbose and compiled.is_circuit:
        compiled.show()
    return compiled


def compile_brevitas_qat_model(
    torch_model,
    torch_inputset,
    n_bits=None,
    configuration=None,
    artifacts=None,
    show_mlir=False,
    rounding_threshold_bits=None,
    p_error=None,
    global_p_error=None,
    output_onnx_file=None,
    verbose=False,
    inputs_encryption_status=None,
    reduce_sum_copy=False,
    device="cpu",
    *,
    tolerance=None,
    range_margin=None,
    degree_max=None,
    parameter_set=None,
    rows=None,
):
    """The same of a module that was trained with Brevitas: weights are what its quantisers make of them. n_bits: of weights that have no
    quantiser; None leaves them as they are. output_onnx_file: where its QONNX form is kept, too: with the weights."""
    if not isinstance(torch_model, nn.Module):
        raise TypeError(f"torch_model is a torch.nn.Module, not {type(torch_model).__name__}")
    configuration = options_of(
        configuration, tolerance=tolerance, range_margin=range_margin, degree_max=degree_max, set=parameter_set, rows=rows
    )
    x = _samples(torch_inputset)
    onnx = to_qonnx(torch_model, (1, *x.shape[1:]))
    try:
        if output_onnx_file is not None:
            Path(output_onnx_file).write_bytes(onnx)
        return _compile_onnx(onnx, x, n_bits, configuration, verbose, type(torch_model).__name__, True)
    finally:
        wipe(onnx)

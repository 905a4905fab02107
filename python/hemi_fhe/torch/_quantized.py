"""Compiled modules with their weights: the owner's side."""

import sys
import threading
from pathlib import Path

import torch

from .. import _native
from .._progress import Bar
from ..common.utils import HybridFHEMode
from ..deployment import tuple_to_underscore_str
from ..errors import HemiArgumentError, HemiUnsupportedError
from ._tensors import choose, run_rows


class QuantizedModule:
    """A compiled module with its weights: owner's side. Takes tensors or arrays and gives back the same kind."""

    def __init__(self, natives, name="the compiled module", verbose=0):
        self._natives = natives  # one for rows, or one for each shape of samples
        self._lock = threading.Lock()
        self._engines = {}  # native -> (keys, evaluator, server keys), made when first needed
        self.name, self.verbose = name, verbose

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

    @property
    def is_circuit(self):
        """Whether it holds what is not linear."""
        return self._native.is_circuit

    def shares_with(self):
        """What compiled modules that one encryption of an input serves have in common; None for others."""
        return self._native.shares_with()

    @property
    def input_shape(self):
        """That of the calibration input, its first dimension set to 1."""
        return self._native.shape

    # ---- computing

    def forward(self, *x, fhe="disable", keys=None):
        """fhe: "disable" (quantised, in the clear), "simulate" (the same with polynomials in place of functions and the predicted
        noise) or "execute"."""
        mode = HybridFHEMode.of(fhe)
        x, tensor, native = self._one(x)
        counts = []
        if mode is HybridFHEMode.EXECUTE:
            function = self._execution(native, keys, counts)
        elif mode in (HybridFHEMode.DISABLE, HybridFHEMode.SIMULATE):
            noise = mode is HybridFHEMode.SIMULATE
            function = lambda a, rows, b: native.run_clear(a, rows, b, noise)  # noqa: E731
        else:
            raise HemiArgumentError(f"a compiled module runs with fhe='disable', 'simulate' or 'execute', not {mode.value!r}")
        y = run_rows(tensor, native, self.name, function)
        _native.warn_out_of_range(self.name, native, sum(counts), native.fits(tensor.shape)[0])
        return y if isinstance(x, torch.Tensor) else y.numpy()

    __call__ = forward

    def _one(self, x):
        """The input as it was given, as a tensor, and which of the modules takes it."""
        if len(x) != 1:
            raise HemiUnsupportedError(f"a compiled module takes one input; got {len(x)}")
        tensor = x[0] if isinstance(x[0], torch.Tensor) else torch.as_tensor(x[0])
        return x[0], tensor, choose(self._natives, tensor, self.name)

    def _engine(self, native, keys=None):
        with self._lock:
            engine = self._engines.get(native)
            if engine is None or (keys is not None and engine[0] is not keys) or not engine[0].usable():
                keys = keys or _native.Keys()
                evaluator = engine[1] if engine else _native.Evaluator(native)
                engine = self._engines[native] = (keys, evaluator, _native.ServerKeys(keys.evaluation([native])))
            return engine

    def _execution(self, native, keys, counts):
        keys, evaluator, server_keys = self._engine(native, keys)
        bar = Bar(self.name) if self.verbose else None

        def run(x, rows, y):
            for first in range(0, rows, native.rows_at_once):
                count = min(native.rows_at_once, rows - first)
                pending = _native.Pending(native, keys, x + 4 * first * native.inputs, count)
                counts.append(pending.decrypt(evaluator.run(pending.request, server_keys), y + 4 * first * native.outputs))
                if bar is not None and count < rows:
                    bar("rows", first + count, rows)

        return run

    # ---- names that the reference system has. There is no stage of integers here: what lies between is floats

    def quantize_input(self, *x):
        """The input as quantized_forward takes it: checked, and as float32. Rounding is a part of encryption."""
        x, tensor, _ = self._one(x)
        tensor = tensor.to(torch.float32)
        return tensor if isinstance(x, torch.Tensor) else tensor.numpy()

    def quantized_forward(self, *q_x, fhe="disable"):
        """What forward() gives: results are floats at once."""
        return self.forward(*q_x, fhe=fhe)

    def dequantize_output(self, *q_y):
        """The result itself."""
        return q_y[0] if len(q_y) == 1 else q_y

    @property
    def fhe_circuit(self):
        return FHECircuit(self)

    def bitwidth_and_range_report(self, shape=None):
        """{"input": ..., one entry for each activation, "output": ..., "module": ...}: ranges, and what they became: degrees and levels of
        polynomials; bits; the parameter set; errors. shape: which, where the module was compiled for several."""
        native = self._native if shape is None else next((n for n in self._natives if n.shape == tuple(shape)), None)
        if native is None:
            raise HemiArgumentError(f"{self.name} was compiled for the shapes {self.input_shapes}, not for {tuple(shape)}")
        info = native.info()
        reach = info["input_scale"] * (2 ** (info["input_bits"] - 1) - 1) if not native.is_circuit else None
        report = {"input": {"range": native.input_range or (-reach, reach), "bitwidth": info["input_bits"] or None}}
        for activation in native.activations() if native.is_circuit else []:
            name, number = activation.pop("name"), 2
            unique = name
            while unique in report:
                unique, number = f"{name} #{number}", number + 1
            report[unique] = activation
        report["output"] = {
            "range": (-info["output_max"], info["output_max"]),
            "approximation_error": info["approximation_error"],
            "predicted_error": info["predicted_error"],
        }
        names = "operation set security_bits levels weight_bits packed_rows upload_bytes download_bytes evaluation_key_bytes".split()
        report["module"] = {name: info[name] for name in names}
        return report

    def show(self, file=None):
        """The report, as lines of text."""
        file = file or sys.stderr
        for shape in self.input_shapes:
            report = self.bitwidth_and_range_report(shape)
            module, output = report.pop("module"), report.pop("output")
            print(f"  {self.name} {shape}: {module['operation']}, set {module['set']}, {module['levels']} levels", file=file)
            for name, entry in report.items():
                low, high = entry["range"]
                degree = f", degree {entry['degree']}, {entry['levels']} levels" if "degree" in entry else ""
                print(f"    {name}: {low:.4g} to {high:.4g}{degree}", file=file)
            low, high = output["range"]
            print(f"    output: {low:.4g} to {high:.4g}, error of approximation {100 * output['approximation_error']:.2g} %", file=file)

    # ---- files, memory

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


class FHECircuit:
    """A compiled module as it runs on encrypted data in this process. Made by QuantizedModule.fhe_circuit."""

    def __init__(self, module):
        self._module = module

    def keygen(self, force=False):
        """Makes the keys now; force: new ones. They are made when first needed otherwise."""
        for native in self._module._natives:
            self._module._engine(native, _native.Keys() if force else None)

    def encrypt_run_decrypt(self, *x):
        return self._module.forward(*x, fhe="execute")

    def simulate(self, *x):
        return self._module.forward(*x, fhe="simulate")

    @property
    def statistics(self):
        """Bytes of one request, its reply, and the evaluation keys; for one row or sample."""
        info = self._module.info
        return {
            "size_of_inputs": info["upload_bytes"],
            "size_of_outputs": info["download_bytes"],
            "size_of_keyswitch_keys": info["evaluation_key_bytes"],
        }

    size_of_inputs = property(lambda self: self.statistics["size_of_inputs"])
    size_of_outputs = property(lambda self: self.statistics["size_of_outputs"])
    size_of_keyswitch_keys = property(lambda self: self.statistics["size_of_keyswitch_keys"])

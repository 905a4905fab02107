"""What the larger examples share. Each is a folder of four files:

    model.py    what owner and application both know: the architecture, the names of the remote modules, the data
    owner.py    FOLDER: makes the model, compiles and saves it to FOLDER/models/NAME; float results to FOLDER/reference.pth
    client.py   URL FOLDER: the application; FOLDER has model.pth and what the owner gave (given.pth); results to FOLDER/results.pth
    run.py      starts owner, hemi-server and client, each as a process of its own, and prints a table"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import serving
import torch


class Progress:
    """A bar on stderr: one line that changes on a terminal, a few lines in a log."""

    def __init__(self, title, total, unit, width=30):
        self.title, self.total, self.unit, self.width = title, total, unit, width
        self.done, self.start, self.shown = 0, time.perf_counter(), 0.0

    def step(self, count=1, note=""):
        self.done += count
        seconds = time.perf_counter() - self.start
        bar = "#" * (self.width * self.done // self.total)
        text = f"  {self.title:<12}[{bar:<{self.width}}] {self.done}/{self.total} {self.unit}  {self.done / max(seconds, 1e-9):.1f}/s {note}"
        if sys.stderr.isatty():
            print("\r" + text, end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)
        elif self.done == self.total or self.done / self.total >= self.shown + 0.25:
            self.shown = self.done / self.total
            print(text, file=sys.stderr, flush=True)


def needs(*packages):
    """For main: goes on in the virtual environment that examples/venv.sh makes, where this interpreter lacks one of these packages."""

    def require():
        specs = {name: importlib.util.find_spec(name) for name in packages}
        missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]  # a folder of that name is no package
        if not missing:
            return
        python = serving.ROOT / os.environ.get("BUILD", "build") / "venv" / "bin" / "python"
        if not python.exists() or os.environ.get("HEMI_EXAMPLE_VENV"):
            sys.exit(
                f"this example needs {' and '.join(missing)}: run examples/venv.sh, which makes {python.parent.parent}, or install what "
                "examples/requirements.txt names with pip"
            )
        os.environ["HEMI_EXAMPLE_VENV"] = "1"
        os.execv(python, [str(python), *sys.argv])

    return require


def options_of(folder):
    """What was asked for on the command line of run.py."""
    return argparse.Namespace(**json.loads((Path(folder) / "options.json").read_text()))


def say(who, text):
    print(f"{who}: {text}", file=sys.stderr, flush=True)


def totals(stats):
    """Sums over the remote modules of HybridFHEModel.stats(), forward and backward."""
    sums = {}
    for module in stats.values():
        for part in (module, module.get("backward", {})):
            for key, value in part.items():
                if isinstance(value, (int, float)):
                    sums[key] = sums.get(key, 0) + value
    return sums


def reports(hybrid):
    """Of an owner's modules with activations: ranges, degrees, levels, sizes."""
    return {name: compiled.bitwidth_and_range_report() for name, compiled in hybrid.private_q_modules.items() if compiled.is_circuit}


def table_of_reports(reports):
    for name, report in reports.items():
        module, output = report["module"], report["output"]
        print(
            f"  {name}: {module['levels']} levels, set {module['set']} ({module['security_bits']:.0f} bits), {module['packed_rows']} in a "
            f"ciphertext: {module['upload_bytes']} bytes up, {module['download_bytes']} down"
        )
        for value, r in report.items():
            if "degree" in r:
                low, high = r["range"]
                print(f"    {value:<46} {low:8.3f} to {high:7.3f}   degree {r['degree']:3d}   {r['levels']} levels")
        print(f"    polynomials instead of activations change the outputs by {output['approximation_error']:.1%} rms")


def peak_memory(pid):
    """Of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def relative_rms(y, reference):
    """Root mean square of the error over that of the reference, whose mean is taken off."""
    return ((y - reference).double().pow(2).mean().sqrt() / (reference - reference.mean()).double().pow(2).mean().sqrt()).item()


def _play(here, name, options, folder):
    quiet = {"stdout": sys.stderr}
    (folder / "options.json").write_text(json.dumps(vars(options)))
    start = time.perf_counter()
    serving.python(here / "owner.py", folder, **quiet)
    owner = time.perf_counter() - start
    client = folder / "client"
    client.mkdir()
    for file in (folder / "models" / name / "model.pth", folder / "given.pth", folder / "options.json"):
        if file.exists():
            shutil.copy(file, client)
    start = time.perf_counter()
    with serving.hemi_server(folder / "models", "--quiet") as server:
        ready = time.perf_counter() - start
        say("server", f"hemi-server at {server.url}, process {server.process.pid}, ready after {ready:.1f} s")
        start = time.perf_counter()
        serving.python(here / "client.py", server.url, client, **quiet)
        times = {"owner_s": owner, "server_start_s": ready, "client_s": time.perf_counter() - start}
        times["server_memory_mib"] = peak_memory(server.process.pid)
    return torch.load(folder / "reference.pth"), torch.load(client / "results.pth"), times


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main(file, name, description, arguments, figures, table, check, require=lambda: None):
    """arguments(parser); figures(options, reference, results) -> dict; table(figures) prints; check(figures) -> what is wrong, or None."""
    serving.stop_cleanly_on_sigterm()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON and nothing else on stdout")
    options = parser.parse_args()
    require()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"hemi-{name}-") as folder:
        reference, results, times = _play(Path(file).resolve().parent, name, options, Path(folder))
    f = {**figures(options, reference, results), **times, "seconds": time.perf_counter() - start}
    if not options.json:
        print()
        table(f)
        print(
            f"  owner {f['owner_s']:.1f} s, server ready in {f['server_start_s']:.1f} s, client {f['client_s']:.1f} s, "
            f"server memory {f['server_memory_mib']:.0f} MiB, all in {f['seconds']:.1f} s\n"
        )
    print(json.dumps(_rounded(f)))
    wrong = check(f)
    if wrong:
        sys.exit(f"{name}: {wrong}")
    if not options.json:
        print(f"{name}: it worked")

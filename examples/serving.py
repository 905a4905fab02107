"""Starts hemi-server as a process of its own, on a free port, and stops that process again. For the examples and tests."""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / os.environ.get("BUILD", "build") / "bin" / "hemi-server"
PR_SET_PDEATHSIG = 1
LOCAL = ["--no-auth", "--store", "memory"]  # without tokens, which is allowed on 127.0.0.1; nothing is left behind


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """A process that is gone when the `with` block is left, or when this process is."""

    def __init__(self, command, **options):
        self.process = subprocess.Popen([str(c) for c in command], preexec_fn=_die_with_parent, **options)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Server(Process):
    """Any program that prints a line of JSON with "port" when it is ready. `url` is its address."""

    def __init__(self, command, seconds=60, **options):
        super().__init__(command, stdout=subprocess.PIPE, universal_newlines=True, **options)
        lines = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        seen = []
        try:
            while True:
                line = lines.get(timeout=seconds)
                if line is None:
                    raise RuntimeError(f"the server ended before it was ready (exit code {self.process.wait()}): {''.join(seen)}")
                seen.append(line)
                if line.lstrip().startswith("{") and "port" in json.loads(line):
                    self.port = json.loads(line)["port"]
                    self.url = f"http://127.0.0.1:{self.port}"
                    return
        except BaseException as error:
            self.stop()
            if isinstance(error, queue.Empty):
                raise RuntimeError(f"the server was not ready after {seconds} s: {''.join(seen)}") from None
            raise

    def _read(self, lines):
        try:
            for line in self.process.stdout:
                lines.put(line)
        except ValueError:  # closed by stop()
            pass
        lines.put(None)


def hemi_server(folder, *arguments, **options):
    """hemi-server for a folder of models, on 127.0.0.1 and any free port, for this machine alone."""
    return Server([PROGRAM, folder, "--port", "0", "--json", *LOCAL, *arguments], **options)


def python(script, *arguments, **options):
    """Runs a Python script to its end; raises if it fails."""
    path = os.pathsep.join([str(ROOT / "python"), str(ROOT / "examples")])
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    return subprocess.run([sys.executable, str(script), *map(str, arguments)], check=True, env=environment, **options)


def stop_cleanly_on_sigterm():
    """SIGTERM unwinds the `with` blocks, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

"""`pip install .` from a clone: builds the C libraries with make, then the extension. All else is in pyproject.toml.

The Debian packages that `make deps` installs are needed; without network, use pip's --no-build-isolation."""

import os
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = os.path.dirname(os.path.abspath(__file__))


class BuildLibrariesFirst(build_ext):
    def run(self):
        # MAKEFLAGS of a surrounding make would not suit this one
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        subprocess.run(["make", "-C", ROOT, "libs"], check=True, env=environment, stdout=sys.stderr)
        super().run()


setup(
    cffi_modules=["python/build_core.py:ffi"],
    cmdclass={"build_ext": BuildLibrariesFirst},
    options={"bdist_wheel": {"py_limited_api": "cp39"}},  # the extension is abi3: one wheel for all later versions
)

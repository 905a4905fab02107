"""Builds hemi_fhe._core, the extension over include/hemi/*.h (cffi, API mode, stable ABI).

    python build_core.py C_FILE      writes the C source; python/build.sh compiles it
    setup.py                         uses `ffi` through cffi's setuptools hook

The declarations are read from the headers themselves, so the two cannot differ; the C compiler checks them again.
"""

import os
import re
import shlex
import subprocess
import sys

import cffi

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEADERS = ["status.h", "params.h", "model.h", "client.h", "server.h"]  # each needs only those before it
LIBRARIES = ["hemi-client", "hemi-server", "hemi-core"]
PACKAGES = ["libcurl", "libmicrohttpd", "gnutls", "sqlite3", "libpq", "libsodium", "jansson", "libzip", "libprotobuf-c"]
CALLBACKS = """
extern "Python" void hemi_py_progress(void *context, const char *what, size_t done, size_t total);
"""


def declarations():
    """What the public headers declare, without preprocessor lines and attributes."""
    text = ""
    for header in HEADERS:
        with open(os.path.join(ROOT, "include", "hemi", header), encoding="utf-8") as file:
            text += re.sub(r"(?m)^\s*#\s*include.*$", "", file.read())
    command = shlex.split(os.environ.get("CC", "cc")) + ["-E", "-P", "-U__GNUC__", "-x", "c", "-"]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout


def pkg_config(what):
    command = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config")) + [what] + PACKAGES
    return shlex.split(subprocess.run(command, stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout)


def make_ffi(build):
    archives = [os.path.join(build, "lib", f"lib{name}.a") for name in LIBRARIES]
    ffi = cffi.FFI()
    ffi.cdef(declarations() + CALLBACKS)
    ffi.set_source(
        "hemi_fhe._core",
        '#include "hemi/hemi.h"\n',
        include_dirs=[os.path.join(ROOT, "include")],
        extra_link_args=archives + ["-Wl,--exclude-libs,ALL", "-Wl,--as-needed"] + pkg_config("--libs") + ["-lm", "-pthread"],
        extra_compile_args=["-O2", "-w"],
        depends=archives,
    )
    return ffi


def build_folder():
    return os.path.join(ROOT, os.environ.get("BUILD", "build"))


if __name__ == "__main__":
    if sys.argv[1] == "--libs":
        print(" ".join(shlex.quote(flag) for flag in pkg_config("--libs")))
    else:
        make_ffi(build_folder()).emit_c_code(sys.argv[1])
else:
    ffi = make_ffi(build_folder())

#!/bin/sh
# Makes $BUILD/venv (default: build/venv) for examples and tests that need transformers or Brevitas: beside Debian's torch and NumPy,
# which it sees, it holds the packages of examples/requirements.txt. Takes about a minute; nothing is done when it is up to date.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
PYTHON=${PYTHON:-/usr/bin/python3}
venv="$BUILD/venv"
if [ -f "$venv/requirements.txt" ] && cmp -s examples/requirements.txt "$venv/requirements.txt"; then
    exit 0
fi
rm -rf "$venv"
"$PYTHON" -m venv --system-site-packages "$venv"
# constraints: what is there stays, and torch is never fetched
"$PYTHON" - <<'END' >"$venv/constraints.txt"
import numpy, torch
print(f"numpy=={numpy.__version__}")
END
"$venv/bin/pip" install -q --disable-pip-version-check -c "$venv/constraints.txt" -r examples/requirements.txt
"$venv/bin/python" -c "import sys, torch, transformers; sys.exit(torch.__file__.startswith(sys.prefix))"
cp examples/requirements.txt "$venv/requirements.txt"

#!/bin/sh
# What `make demo` runs after the build: the code of the seed pages, then handwritten digits. Leaves nothing running.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
BUILD=${BUILD:-build}
export BUILD PYTHONPATH="$PWD/python" PYTHONDONTWRITEBYTECODE=1
"$PYTHON" examples/seeds/run.py
echo
"$PYTHON" examples/digits/run.py

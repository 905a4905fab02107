#!/usr/bin/env bash
# Constant time whatever the compiler makes of it: tests/test_constant_time.c (key generation, encryption, decryption under valgrind, secrets undefined) built
# by gcc and clang at -O0 to -O3, each in a tree of its own below $BUILD-ct. Half an hour on two cores.  tests/constant_time.sh [COMPILER-OLEVEL...]
#
# One line `ok - ...` or `not ok - ...` for each; exits with 1 if one is not ok.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
failed=0
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
[ $# -gt 0 ] || set -- gcc-O0 gcc-O1 gcc-O2 gcc-O3 clang-O0 clang-O1 clang-O2 clang-O3
for which in "$@"; do
    cc=${which%-*} level=${which#*-} tree=$BUILD-ct/$which
    program=$tree/tests/test_constant_time
    mkdir -p "$tree"
    if ! command -v "$cc" >/dev/null; then echo "not ok - $which: $cc is not installed (make deps)"; failed=1; continue; fi
    # valgrind reads no newer debugging information of clang; warnings that depend on the optimiser are for the usual build; calls, and what is inlined, stay those of the level
    if ! make BUILD="$tree" CC="$cc" OPT_FLAGS="-$level -gdwarf-4 -Wno-error" "$program" >"$tree/make.log" 2>&1; then
        echo "not ok - $which does not build: $(grep -m 1 error "$tree/make.log")"; failed=1; continue
    fi
    start=$SECONDS
    if valgrind -q "$program" >"$tree/valgrind.log" 2>&1; then
        echo "ok - $which: $(grep -ac '\[       OK \]' "$tree/valgrind.log") tests, $((SECONDS - start)) s"
    else
        echo "not ok - $which"; failed=1
        grep -aE 'FAILED|Conditional|Use of uninit|at 0x|by 0x' "$tree/valgrind.log" | head -n 20
    fi
done
exit $failed

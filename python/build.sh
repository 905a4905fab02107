#!/bin/sh
# Builds python/hemi_fhe/_core.abi3.so in place from $BUILD/lib (default: build), so that PYTHONPATH=python works. Needs no
# network and takes about two seconds; nothing is done when it is up to date.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
PYTHON=${PYTHON:-/usr/bin/python3}
CC=${CC:-cc}
out=python/hemi_fhe/_core.abi3.so
libs="$BUILD/lib/libhemi-client.a $BUILD/lib/libhemi-server.a $BUILD/lib/libhemi-core.a"

for lib in $libs; do
    [ -f "$lib" ] || { echo "python/build.sh: $lib is missing; run make first" >&2; exit 1; }
done
mkdir -p "$BUILD/python"
stamp="$BUILD/python/stamp"
printf '%s\n' "$BUILD $PYTHON $CC" > "$stamp.now"
if [ -f "$out" ] && cmp -s "$stamp.now" "$stamp" &&
   [ -z "$(find $libs include/hemi/*.h python/build_core.py python/build.sh -newer "$out")" ]; then
    exit 0
fi
printf '  %-5s %s\n' PY "$out"
c="$BUILD/python/_core.c"
BUILD="$BUILD" CC="$CC" "$PYTHON" python/build_core.py "$c" >/dev/null
include=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
# written beside and moved: a process that has the old one loaded keeps it
eval "$CC" -O2 -w -fPIC -shared -Iinclude "-I$include" "$c" -o "$out.$$" $libs -Wl,--exclude-libs,ALL -Wl,--as-needed \
    "$("$PYTHON" python/build_core.py --libs)" -lm -pthread ${LDFLAGS:-}
mv -f "$out.$$" "$out"
mv -f "$stamp.now" "$stamp"

#!/usr/bin/env bash
# Every public header compiles alone, as C17 and as C++; every header of a room compiles alone as C17. One line
# `ok - ...` or `not ok - ...` per public header and language, and one for all headers of a room.
set -u
cd "$(dirname "$0")/.."
CC=${CC:-cc} CXX=${CXX:-c++} BUILD=${BUILD:-build}
failed=0
report() {
    if [ "$1" = 0 ]; then echo "ok - $2"; else echo "not ok - $2"; failed=1; fi
}
# twice: the guard works
alone() { printf '#include "%s"\n#include "%s"\nint main(void) { return 0; }\n' "$1" "$1"; }

for header in include/hemi/*.h; do
    name=${header#include/}
    alone "$name" | $CC -std=c17 -Iinclude -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -fsyntax-only -x c -
    report $? "$name alone, C17"
    alone "$name" | $CXX -std=c++11 -Iinclude -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ -
    report $? "$name alone, C++"
done

case $($CC -dumpmachine) in x86_64*) x86=1 ;; *) x86=0 ;; esac
for room in src/*/; do
    bad=0 seen=0
    for header in "$room"*.h; do
        [ -e "$header" ] || continue
        flags=
        case $header in
        *avx512*) [ $x86 = 1 ] || continue; flags="-mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx512ifma -mavx512vbmi" ;;
        *avx2*) [ $x86 = 1 ] || continue; flags="-mavx2 -mfma" ;;
        esac
        seen=$((seen + 1))
        # shellcheck disable=SC2086
        alone "${header#src/}" | $CC -std=c17 -D_GNU_SOURCE $flags -Iinclude -Isrc -isystem "$BUILD/gen" -Wall -Wextra -Wno-unused-function \
            -Werror -fsyntax-only -x c - || { echo "  $header"; bad=1; }
    done
    [ $seen = 0 ] || report $bad "each of the $seen headers of ${room#src/} alone"
done
exit $failed

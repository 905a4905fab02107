#!/usr/bin/env bash
# No secret-key code on the server: none of the symbols that the objects of src/secret define is in the libraries the
# server is made of or in the (unstripped) program hemi-server. One line `ok - ...` or `not ok - ...` per check.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
failed=0
report() { # report STATUS TEXT
    if [ "$1" = 0 ]; then echo "ok - $2"; else echo "not ok - $2"; failed=1; fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The names a file mentions, defined or not, one per line, sorted.
names() { nm -P "$1" 2>/dev/null | awk 'NF >= 2 { print $1 }' | LC_ALL=C sort -u; }
# 0: FILE has symbols and none of the secret ones. 1 otherwise, with the reason on stdout.
free_of_secrets() {
    names "$1" >"$scratch/names"
    if [ ! -s "$scratch/secret" ]; then echo "  src/secret defines nothing"; return 1; fi
    if [ ! -s "$scratch/names" ]; then echo "  $1 is missing or lists no symbol"; return 1; fi
    LC_ALL=C comm -12 "$scratch/secret" "$scratch/names" >"$scratch/common"
    if [ -s "$scratch/common" ]; then sed "s|^|  $1: |" "$scratch/common" | head -20; return 1; fi
}

# Global names suffice: whatever is linked or archived of an object brings them along.
nm -P -g --defined-only "$BUILD"/obj/secret/*.o 2>/dev/null | awk 'NF >= 3 { print $1 }' | LC_ALL=C sort -u >"$scratch/secret"
count=$(wc -l <"$scratch/secret")
[ "$count" -gt 0 ]
report $? "src/secret defines $count symbols"

for file in "$BUILD/lib/libhemi-server.a" "$BUILD/lib/libhemi-core.a" "$BUILD/bin/hemi-server"; do
    free_of_secrets "$file"
    report $? "$file holds no secret-key code"
done

# The lists mean something: the server's program shows the server's own symbols, and needs no client library.
names "$BUILD/bin/hemi-server" | grep -qx hemi_http_server_start
report $? "$BUILD/bin/hemi-server is not stripped"
needed=$(readelf -d "$BUILD/bin/hemi-server" 2>/dev/null | awk '/NEEDED/ { print $NF }')
[ -n "$needed" ] && ! grep -q curl <<<"$needed"
report $? "$BUILD/bin/hemi-server does not load libcurl"

# And the check fails where it must: on the client's program and library because of what they hold, and on nothing.
for file in "$BUILD/bin/hemi" "$BUILD/lib/libhemi-client.a"; do
    rm -f "$scratch/common"
    ! free_of_secrets "$file" >/dev/null && [ -s "$scratch/common" ]
    report $? "the check finds the secret-key code of $file"
done
for file in "$scratch/absent" /dev/null; do
    ! free_of_secrets "$file" >/dev/null
    report $? "the check fails on ${file##*/}, which has no symbols"
done
mv "$scratch/secret" "$scratch/kept" && : >"$scratch/secret"
! free_of_secrets "$BUILD/bin/hemi-server" >/dev/null
report $? "the check fails when src/secret defines nothing"
exit $failed

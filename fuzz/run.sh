#!/usr/bin/env bash
# Every fuzz harness of $BUILD for so many seconds, one after the other, from its corpus. What is found new goes to $BUILD/fuzz-corpus, what crashes to
# $BUILD/fuzz-crashes.  fuzz/run.sh SECONDS [HARNESS...]
#
# One line `ok - ...` or `not ok - ...` for each, with what was executed and covered; exits with 1 if one crashed.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build-fuzz}
seconds=${1:-60}
shift || true
failed=0
mkdir -p "$BUILD/fuzz-crashes"
[ $# -gt 0 ] || set -- fuzz/fuzz_*.c
for source in "$@"; do
    name=$(basename "$source" .c) corpus=fuzz/corpus/${source##*/fuzz_}
    corpus=${corpus%.c} new=$BUILD/fuzz-corpus/$name log=$BUILD/$name.log
    mkdir -p "$new"
    # the fork of a harness that listens, or of keys that are locked in memory, is of no use: one process
    ASAN_OPTIONS=detect_stack_use_after_return=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
        "$BUILD/fuzz/$name" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=4096 -max_len=4096 -print_final_stats=1 -artifact_prefix="$BUILD/fuzz-crashes/$name-" \
        "$new" "$corpus" >"$log" 2>&1
    status=$?
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") covered=$(grep -aoE 'cov: [0-9]+' "$log" | tail -n 1) features=$(grep -aoE 'ft: [0-9]+' "$log" | tail -n 1)
    if [ $status = 0 ]; then word=ok; else word='not ok' failed=1; fi
    echo "$word - $name: ${executed:-0} executions in $seconds s, ${covered:-cov: 0}, ${features:-ft: 0}"
    [ $status = 0 ] || { grep -aE 'ERROR|SUMMARY|runtime error|fuzz_.*\.c:[0-9]+:' "$log" | head -n 5; tail -n 3 "$log"; }
done
exit $failed

#!/usr/bin/env bash
# Every test of the project, after building what is missing. `make check` calls this.
#
#   tests/run.sh                 all suites
#   tests/run.sh c checks ...    some of: c checks python time sanitizers examples (the last one only when long)
#
# Ends with one line `N passed, N failed`, which counts single tests; exits with 1 if one failed, a program crashed, a suite
# ran out of time, or nothing ran. Logs: $BUILD/test-logs. Environment: BUILD, PYTHON, CC, HEMI_TEST_LONG, TEST_JOBS.
set -u
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build} PYTHON=${PYTHON:-/usr/bin/python3} LC_ALL=C.UTF-8
BUILD_SANITIZE=$BUILD-asan
JOBS=${TEST_JOBS:-$(nproc)}
LIMIT=${TEST_LIMIT:-400} # seconds for one program; ten times that when long
[ -z "${HEMI_TEST_LONG:-}" ] || LIMIT=$((10 * LIMIT))
LOGS=$BUILD/test-logs
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES # a make of ours is a make of its own

# ---- one program: reads its log, writes "passed failed skipped seconds" to the file .count beside it
# cmocka prints, per group, "Running N test(s)", then "[  PASSED  ] N test(s)", "[  FAILED  ] N test(s), listed below:" and
# the like for skipped ones. What was announced and not accounted for has crashed. Programs of checks print
# "ok - ..." and "not ok - ..."; pytest its summary.
sum() { grep -aoE "$1" "$2" | grep -oE '[0-9]+' | awk '{ s += $1 } END { print s + 0 }'; }
run_one() { # run_one KIND LOG COMMAND...
    local kind=$1 log=$2 rc passed=0 failed=0 skipped=0 planned=0 start=$EPOCHREALTIME
    shift 2
    timeout -k 10 "$LIMIT" "$@" >"$log" 2>&1 </dev/null
    rc=$?
    case $kind in
    cmocka)
        planned=$(sum '^\[==========\] Running [0-9]+ test' "$log")
        passed=$(sum '^\[  PASSED  \] [0-9]+ test' "$log")
        failed=$(sum '^\[  FAILED  \] [0-9]+ test' "$log")
        skipped=$(sum '^\[  SKIPPED \] [0-9]+ test' "$log")
        ;;
    check)
        passed=$(grep -ac '^ok - ' "$log")
        failed=$(grep -ac '^not ok - ' "$log")
        planned=$((passed + failed))
        ;;
    pytest)
        local line
        line=$(grep -aE '(passed|failed|error|skipped).* in [0-9.]+s' "$log" | tail -n 1)
        passed=$(grep -oE '[0-9]+ passed' <<<"$line" | grep -oE '[0-9]+' || echo 0)
        failed=$(grep -oE '[0-9]+ (failed|errors?)' <<<"$line" | awk '{ s += $1 } END { print s + 0 }')
        skipped=$(grep -oE '[0-9]+ skipped' <<<"$line" | grep -oE '[0-9]+' || echo 0)
        planned=$((passed + failed + skipped))
        ;;
    esac
    local missing=$((planned - passed - failed - skipped))
    [ "$missing" -le 0 ] || { failed=$((failed + missing)); echo "run.sh: $missing tests have no result" >>"$log"; }
    [ "$rc" != 124 ] && [ "$rc" != 137 ] || echo "run.sh: stopped after $LIMIT seconds" >>"$log"
    if [ "$failed" = 0 ]; then
        if [ "$rc" != 0 ]; then failed=1; echo "run.sh: exit status $rc" >>"$log"
        elif [ "$planned" = 0 ]; then failed=1; echo "run.sh: no test ran" >>"$log"; fi
    fi
    awk -v p="$passed" -v f="$failed" -v s="$skipped" -v a="$start" -v b="$EPOCHREALTIME" \
        'BEGIN { printf "%d %d %d %.1f\n", p, f, s, b - a }' >"$log.count.new"
    mv "$log.count.new" "$log.count"
}
if [ "${1:-}" = --one ]; then
    shift
    run_one "$@"
    exit 0
fi

# ---- suites: each adds jobs "LABEL<TAB>KIND<TAB>COMMAND"; a row of the table for each
rows=() total_passed=0 total_failed=0 jobs=()
add() { jobs+=("$1"$'\t'"$2"$'\t'"$3"); }

show() { # show LABEL LOG: the row, and what went wrong
    local label=$1 log=$2 p=0 f=1 s=0 t=0
    [ -s "$log.count" ] && read -r p f s t <"$log.count"
    total_passed=$((total_passed + p)) total_failed=$((total_failed + f))
    rows+=("$(printf '%-34s %7d %7d %8s %9s' "$label" "$p" "$f" "$([ "$s" = 0 ] || echo "$s")" "$t s")")
    printf '%s\n' "${rows[-1]}"
    [ "$f" = 0 ] && return
    echo "---- $label failed; the end of $log:"
    grep -aE '^\[  (FAILED |ERROR  ) |^not ok|^FAILED|^ERROR|run\.sh:|ERROR: AddressSanitizer|runtime error' "$log" | sort -u | head -n 20
    tail -n 30 "$log"
    echo "----"
}

run_jobs() { # run_jobs PARALLEL: runs what was added; shows the rows in order, as soon as they are known
    local parallel=$1 job label kind command running=0 i=0 shown=0 logs=()
    for job in "${jobs[@]}"; do
        IFS=$'\t' read -r label kind command <<<"$job"
        logs[i]="$LOGS/${label//[^A-Za-z0-9._-]/_}.log"
        rm -f "${logs[i]}" "${logs[i]}.count"
        if [ $running -ge "$parallel" ]; then wait -n; running=$((running - 1)); fi
        # shellcheck disable=SC2086
        env $command_env "$0" --one "$kind" "${logs[i]}" $command &
        running=$((running + 1)) i=$((i + 1))
        while [ $shown -lt $i ] && [ -e "${logs[shown]}.count" ]; do
            show "${jobs[shown]%%$'\t'*}" "${logs[shown]}"
            shown=$((shown + 1))
        done
    done
    while [ $shown -lt $i ]; do
        if [ ! -e "${logs[shown]}.count" ] && [ -n "$(jobs -pr)" ]; then wait -n; continue; fi
        show "${jobs[shown]%%$'\t'*}" "${logs[shown]}" # without a count: it failed
        shown=$((shown + 1))
    done
    wait
    jobs=()
}

build() { # build TITLE COMMAND...: a build that fails is a failed test
    local title=$1 log start=$SECONDS
    shift
    log="$LOGS/build_${title// /_}.log"
    if ! "$@" >"$log" 2>&1; then
        total_failed=$((total_failed + 1))
        rows+=("$(printf '%-34s %7d %7d %8s %9s' "build: $title" 0 1 "" "$((SECONDS - start)) s")")
        echo "---- the build ($title) failed:"
        grep -aE 'error|undefined|warning|\*\*\*' "$log" | head -n 40
        echo "----"
        return 1
    fi
}

command_env=
programs() { # programs FOLDER: the test programs that stand for a source, in order
    local source
    for source in tests/*.c; do
        [ ! -e "$source" ] || echo "$1/$(basename "$source" .c)"
    done
}

suite_c() {
    build "libraries, programs, tests" make -k all BUILD="$BUILD"
    for program in $(programs "$BUILD/tests"); do add "${program##*/}" cmocka "$program"; done
    run_jobs "$JOBS"
}

suite_checks() {
    add "includes go downwards" check "$PYTHON tests/check_includes.py"
    add "no secret key on the server" check "tests/check_symbols.sh"
    add "headers compile alone" check "tests/check_headers.sh"
    add "rooms and documents" check "tests/check_text.sh"
    run_jobs "$JOBS"
}

suite_time() { # constant time, under valgrind
    [ -x "$BUILD/tests/test_constant_time" ] || return
    add "constant time under valgrind" cmocka "valgrind -q $BUILD/tests/test_constant_time"
    run_jobs 1
}

suite_fuzz() { # what fuzzers found and what makes them begin, under the sanitizers; when long, the fuzzers themselves
    build "fuzz harnesses, sanitizers" make -k fuzz BUILD="$BUILD_SANITIZE" SANITIZE=address,undefined || return
    command_env="ASAN_OPTIONS=detect_stack_use_after_return=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1"
    for source in fuzz/fuzz_*.c; do
        local name
        name=$(basename "$source" .c)
        add "$name, its corpus" check "$BUILD_SANITIZE/fuzz/$name fuzz/corpus/${name#fuzz_}"
    done
    run_jobs "$JOBS"
    command_env=
    [ -n "${HEMI_TEST_LONG:-}" ] || return
    build "fuzzers" make fuzz-tree BUILD="$BUILD" || return
    add "fuzzers, 60 s each" check "env BUILD=$BUILD-fuzz fuzz/run.sh 60"
    run_jobs 1
}

servers_under_load() { # what $command_env makes of hemi-server, by itself: many clients, slow ones, resets, tenants, replicas
    build "Python extension" python/build.sh || return
    command_env="-u HEMI_TEST_LONG $command_env PYTHONPATH=python PYTHONDONTWRITEBYTECODE=1"
    add "servers under load, $1" pytest "$PYTHON -m pytest -q -p no:cacheprovider tests/python/test_abuse.py tests/python/test_tenants.py \
tests/python/test_replicas.py tests/python/test_observability.py"
    run_jobs 1
}

suite_threads() { # data races, of the server under load too; only when long
    [ -n "${HEMI_TEST_LONG:-}" ] || return
    local programs="test_server test_server_keys test_server_reload test_server_prepare test_identity test_budget test_store test_jobs test_client test_client_prepare test_shared \
test_server_circuit test_client_circuit_call test_client_circuit_http test_server_limits test_server_progress"
    build "ThreadSanitizer" make -k $(printf "$BUILD-tsan/tests/%s " $programs) programs BUILD="$BUILD-tsan" SANITIZE=thread || return
    command_env="HEMI_TEST_QUICK=1 BUILD=$BUILD-tsan TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:die_after_fork=0:suppressions=$PWD/tests/tsan.supp"
    for program in $programs; do add "$program, TSan" cmocka "$BUILD-tsan/tests/$program"; done
    run_jobs 1
    servers_under_load TSan
    command_env=
}

suite_time_matrix() { # constant time with gcc and clang, -O0 to -O3; only when long
    [ -n "${HEMI_TEST_LONG:-}" ] || return
    add "constant time, gcc and clang, -O0 to -O3" check "tests/constant_time.sh"
    run_jobs 1
}

suite_python() {
    [ -d tests/python ] || return
    [ ! -x python/build.sh ] || build "Python extension" python/build.sh || return
    command_env="PYTHONPATH=python PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=$JOBS"
    # those of servers mostly wait: beside the others, but for what is measured when long
    local waiting="tests/python/test_tenants.py tests/python/test_replicas.py tests/python/test_crash.py tests/python/test_key_files.py \
tests/python/test_observability.py tests/python/test_abuse.py"
    add "Python" pytest "$PYTHON -m pytest -q -p no:cacheprovider --durations=5 tests/python $(printf -- '--ignore=%s ' $waiting)"
    add "Python, servers" pytest "$PYTHON -m pytest -q -p no:cacheprovider --durations=5 $waiting"
    run_jobs "$([ -n "${HEMI_TEST_LONG:-}" ] && echo 1 || echo "$JOBS")"
    command_env=
}

suite_examples() { # in full; only when long: they need transformers, which a virtual environment brings
    [ -n "${HEMI_TEST_LONG:-}" ] || return
    [ ! -x python/build.sh ] || build "Python extension" python/build.sh || return
    build "virtual environment of the examples" examples/venv.sh || return
    command_env="PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=$JOBS"
    add "examples" pytest "$BUILD/venv/bin/python -m pytest -q -p no:cacheprovider --durations=0 tests/examples"
    add "Brevitas" pytest "$BUILD/venv/bin/python -m pytest -q -p no:cacheprovider tests/python/test_brevitas.py"
    run_jobs 1
    command_env=
}

suite_sanitizers() {
    build "sanitizers" make -k tests programs BUILD="$BUILD_SANITIZE" SANITIZE=address,undefined
    # detect_stack_use_after_return stays off: gcc 12 does not align the stack it makes for 512-bit vectors (PR 110027);
    # handle_segv=2: the sanitizer reports a crash, not cmocka
    command_env="HEMI_TEST_QUICK=1 BUILD=$BUILD_SANITIZE \
ASAN_OPTIONS=detect_stack_use_after_return=0:strict_string_checks=1:handle_segv=2:handle_sigbus=2:handle_abort=2 \
UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1"
    for program in $(programs "$BUILD_SANITIZE/tests"); do
        [ "${program##*/}" = test_constant_time ] || add "${program##*/}, ASan and UBSan" cmocka "$program"
    done
    run_jobs "$JOBS"
    [ -z "${HEMI_TEST_LONG:-}" ] || servers_under_load "ASan and UBSan"
    command_env=
}

mkdir -p "$LOGS"
[ $# -gt 0 ] || set -- c checks time python examples sanitizers fuzz threads time_matrix
printf '%-34s %7s %7s %8s %9s\n' suite passed failed skipped time
for suite in "$@"; do
    if ! declare -F "suite_$suite" >/dev/null; then
        echo "run.sh: there is no suite $suite" >&2
        exit 2
    fi
    "suite_$suite"
done

printf '\n%-34s %7s %7s %8s %9s\n' suite passed failed skipped time
printf '%s\n' "${rows[@]}"
printf '%-34s %7d %7d %8s %9s\n\n' total $total_passed $total_failed "" "$SECONDS s"
echo "$total_passed passed, $total_failed failed"
[ $total_failed = 0 ] && [ $total_passed -gt 0 ]

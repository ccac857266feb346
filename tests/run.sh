#!/bin/bash
# Runs the test programs and prints each one's name, count and time; the last line is `N passed, M failed`.
#
#   tests/run.sh fast|all BUILD_DIR
#
# `all` adds the scripts tests/mpi_*.sh, which run several ranks and print "ok NAME" or "not ok NAME" for each
# case; they find the build in $CARACAL_BUILD.
set -u
# waiting threads sleep: more tests than cores run at a time, and a spinning thread costs another its turn
export OMP_WAIT_POLICY=passive
what=${1:?fast or all}
export CARACAL_BUILD=${2:?the build directory}
limit=900 # seconds before a program counts as hung
cd "$(dirname "$0")/.." || exit 2

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs one program; `count passed|failed` reads its log.
run_one() {
    local name=$1 start=$EPOCHREALTIME good bad code
    shift
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1
    code=$?
    good=$(count passed)
    bad=$(count failed)
    [ "$code" != 0 ] && [ "$bad" = 0 ] && bad=1 # it crashed or hung before it could say so
    [ "$code" = 0 ] && [ "$good$bad" = 00 ] && bad=1 # a program without a case tests nothing
    passed=$((passed + good))
    failed=$((failed + bad))
    if [ "$bad" != 0 ]; then
        sed 's/^/    /' "$log"
        printf 'FAILED %-32s exit code %s\n' "$name" "$code"
    else
        printf 'ok     %-32s %4d  %6.1f s\n' "$name" "$good" \
            "$(awk "BEGIN { print ${EPOCHREALTIME/,/.} - ${start/,/.} }")"
    fi
}

# cmocka's summary lines, or a script's own lines
count() {
    awk -v what="$1" '
        /^\[  (PASSED|FAILED)  \] [0-9]+ test/ { n[$2 == "PASSED" ? "passed" : "failed"] += $4 }
        /^ok / { n["passed"]++ }
        /^not ok / { n["failed"]++ }
        END { print n[what] + 0 }' "$log"
}

for source in tests/test_*.c tests/f64_*.c; do
    [ -e "$source" ] || continue
    name=$(basename "$source" .c)
    run_one "$name" "$CARACAL_BUILD/tests/$name"
done
if [ "$what" = all ]; then
    for script in tests/mpi_*.sh; do
        [ -e "$script" ] && run_one "$(basename "$script" .sh)" "$script"
    done
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]

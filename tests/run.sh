#!/bin/bash
# Runs the test programs, one on each core, and prints each one's name, count and time; the last line is
# `N passed, M failed`.
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

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs one program and prints its line, after its output if it failed; `count passed|failed` reads its log.
run_one() {
    local name=$1 log=$work/$1.log start=$EPOCHREALTIME good bad code
    shift
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1
    code=$?
    good=$(count passed "$log")
    bad=$(count failed "$log")
    [ "$code" != 0 ] && [ "$bad" = 0 ] && bad=1 # it crashed or hung before it could say so
    [ "$code" = 0 ] && [ "$good$bad" = 00 ] && bad=1 # a program without a case tests nothing
    echo "$good $bad" >>"$work/counts"
    if [ "$bad" != 0 ]; then
        printf '%s\nFAILED %-32s exit code %s\n' "$(sed 's/^/    /' "$log")" "$name" "$code"
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
        END { print n[what] + 0 }' "$2"
}

for source in tests/test_*.c tests/f64_*.c; do
    [ -e "$source" ] || continue
    while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    name=$(basename "$source" .c)
    run_one "$name" "$CARACAL_BUILD/tests/$name" &
done
wait
if [ "$what" = all ]; then
    for script in tests/mpi_*.sh; do
        [ -e "$script" ] && run_one "$(basename "$script" .sh)" "$script"
    done
fi

awk '{ passed += $1; failed += $2 }
     END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || passed == 0 }' "$work/counts"

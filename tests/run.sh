#!/bin/bash
# Runs the test programs, as many at a time as there are cores, and prints each one's name, count and time; the last line is
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

# Runs it beside others, as many as there are cores, once one of them is free.
beside() {
    while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do wait -n; done
    run_one "$@" &
}

# What takes longest goes first, so that the end is not one program and idle cores.
for name in test_cuda_matrix test_cuda_step $(basename -s .c -a tests/test_*.c tests/f64_*.c | grep -vx 'test_cuda_matrix\|test_cuda_step'); do
    beside "$name" "$CARACAL_BUILD/tests/$name"
done
wait
# Ranks of several scripts share the cores: waiting for a message, each lets the others go on.
export OMPI_MCA_mpi_yield_when_idle=1
if [ "$what" = all ]; then
    for name in mpi_promises mpi_resume mpi_crash $(basename -s .sh -a tests/mpi_*.sh | grep -vx 'mpi_promises\|mpi_resume\|mpi_crash'); do
        beside "$name" "tests/$name.sh"
    done
    wait
fi

awk '{ passed += $1; failed += $2 }
     END { print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 || passed == 0 }' "$work/counts"

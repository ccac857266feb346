#!/bin/bash
# Power losses: from the log of all calls into the file system of a run, the states that a disk may be in when the
# power goes after each of them, with writes that were not synced lost, in part or as a whole, and names that were
# not synced lost or not (tests/power_states.h).  In each the loader finds the old checkpoint or the new one.
#
#   tests/mpi_powerloss.sh [SAMPLES] [SEED]      states for each call and kind of file system; `make crash-storm`: 20
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
samples=${1:-1}
seed=${2:-1}
storm_steps=5
source "$(dirname "$0")/storm.sh"
steps="--train.steps=$storm_steps --checkpoint.keep=1"

# Runs with every call logged; the rules kill it once or not at all, then it goes on.
logged() { # ranks, name, rules
    mkdir -p "$2"
    SHIM_UNDER=$out/$2 SHIM_LOG=$out/$2.log SHIM_RULES=$3 SHIM_RANK=0 "$storm" 0 env LD_PRELOAD="$shim" \
        $(launcher "$1") "$caracal" train tiny.yaml $small --run.dir="$2/run" $steps >log 2>&1
}

# Audits the log and goes on from some of the states.
audit() { # name, states to go on from
    local state
    mkdir "$1.states"
    check "$1: the newest or the one before, whole, in every state" \
        "$build/tests/powerloss" "$1.log" run base "$1.states" "$samples" "$seed" "$2"
    tail -n 1 check.log
    for state in $(ls -d "$1.states"/*); do
        train 1 "$state/run" $steps >log 2>&1
        check "$1: goes on from state ${state##*/}" finished "$state/run"
    done
    rm -rf "$1.states"
}

check "one rank" logged 1 one ""
audit one $((2 + samples))
check "two ranks" logged 2 two ""
audit two $((2 + samples))
logged 1 twice 3:100:killhalf
check "killed, and again" [ $? = 137 ]
logged 1 twice 3:255:killafter
check "goes on" logged 1 twice ""
audit twice $((2 + samples))
exit $failed

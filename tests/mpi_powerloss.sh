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
. "$(dirname "$0")/storm.sh"
steps="$small --checkpoint.keep=1"

# Runs with every call logged; the rules kill it once or not at all, and it goes on.
logged() { # ranks, name, rules
    mkdir -p "$2"
    SHIM_UNDER=$out/$2 SHIM_LOG=$out/$2.log SHIM_RULES=${3-} SHIM_RANK=0 struck 0 "$1" "$2/run" $steps
}
killed() { # the same, where the rules kill
    logged "$@"
    [ $? = 137 ]
}

# Audits the log and goes on from some of the states.
audit() { # name
    local state
    mkdir "$1.states"
    "$bin/powerloss" "$1.log" run base "$1.states" "$samples" "$seed" $((2 + samples)) >"$1.audit" 2>&1
    check "$1: $(tail -n 1 "$1.audit")" grep " 0 wrong" "$1.audit" || cat "$1.audit"
    for state in "$1.states"/*/; do
        train 1 "$state/run" $steps >log 2>&1
        # a loss while the older checkpoint is removed leaves part of it under .tmp, which goes with the next save: the
        # last one of a run has none
        check "$1: goes on from $state" finished "$state/run" 1
    done
    rm -rf "$1.states"
}

check "two ranks, undisturbed" logged 2 calm
audit calm
check "killed while writing" killed 1 twice 3:9:killhalf
check "killed again, after the name" killed 1 twice 3:30:killafter
check "goes on" logged 1 twice
audit twice

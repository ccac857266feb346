#!/bin/bash
# Saves that fail, at every call into the file system, for every reason: training goes on and ends with the same bits,
# older checkpoints are intact, one message names the file and the cause, nothing is left over, and the next save works.
#
#   tests/mpi_save_failures.sh [STRIDE]      every STRIDE-th call; `make crash-storm`: every one, for every reason
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
stride=${1:-4}
storm_steps=60
. "$(dirname "$0")/storm.sh"
steps="$small --checkpoint.keep=3"

declare -A means=([ENOSPC]="No space left on device" [EIO]="Input/output error" [EROFS]="Read-only file system"
    [EACCES]="Permission denied" [EMFILE]="Too many open files" [EDQUOT]="Disk quota exceeded")

# The run ended well; each save of the list failed with one message, which names a file and the cause.
told() { # run, cause, steps...: that many messages and no others
    local run=$1 cause=$2 step
    shift 2
    finished "$run" || return
    for step; do
        grep -qE "^caracal: (checkpoint of step ($step|$((step + 1))) not written|an older checkpoint stays): $run/checkpoints.*: $cause" log ||
            { echo "nothing is said of the failure at step $step"; return 1; }
    done
    [ "$(grep -c '^caracal:' log)" = $# ] || { echo "$# failures, and these messages:"; grep '^caracal:' log; return 1; }
}

# Lets every stride-th call of a save fail, each in a save of its own, with a save that works in between.  When
# retention cannot look at an old manifest there is nothing to tell: it stays until the next save.
calls_fail() { # ranks, the rank that counts, first call, stride, reason
    local ranks=$1 rank=$2 call=$3 by=$4 why=$5 step rules fired end run=fail-$1-$2
    end=$(calls_of_save "$ranks" "$rank")
    while [ "$call" -le "$end" ]; do
        rules=""
        for ((step = 2; step < storm_steps && call <= end; step += 2, call += by)); do rules+=" $step:$call:$why"; done
        rm -rf "$run" trace
        SHIM_RANK=$rank SHIM_RULES=${rules# } SHIM_TRACE=$out/trace struck 0 "$ranks" "$run" $steps || return
        fired=$(awk '$4 != 0 && !($3 ~ /open|read/ && $5 ~ /step-[0-9]*\/manifest.json$/) { print $1 }' trace)
        # shellcheck disable=SC2086
        told "$run" "${means[$why]}" $fired || { echo "rules: $rules"; return 1; }
        wc -w <<<"$rules" >>tried
    done
}
fails() {
    check "$5 at every call of one save ($4: 1 in $4), rank $2 of $1" calls_fail "$@"
}
calls_of_save() { # ranks, rank: the most calls that a save of it makes
    rm -rf count trace
    SHIM_RANK=$2 SHIM_TRACE=$out/trace struck 0 "$1" count $steps --train.steps=6
    awk '$1 > 0 && $2 > most { most = $2 } END { print most }' trace
}

# Half of every write, and signals that interrupt it: nothing to tell.
patient() { # action
    SHIM_RULES="2:1-:$1" struck 0 1 "patient-$1" $steps && told "patient-$1" "" 
}

# The disk fails from some call on to the end of a save, the tidying up included, and a few saves more: one message for
# each, and then all is well.
fails_on() { # call
    SHIM_RULES="4:$1-$(($1 + 45)):EIO" struck 0 1 "on-$1" $steps && finished "on-$1" &&
        grep '^caracal:' log | sort | uniq -d | wc -l | grep -x 0 &&
        ! grep '^caracal:' log | grep -vE "(not written|an older checkpoint stays): on-$1/checkpoints.*: Input/output error"
}

# The directory goes away under a run: all at once, for what is taken out of a save file by file may be put in place
# without them.
deleted() {
    SHIM_SLOW=200 struck 0 2 deleted $steps &
    wait_for eval '[ "$(newest deleted)" -ge 4 ]' && mv deleted/checkpoints deleted/gone
    wait $! && finished deleted && [ "$(grep -c '^caracal:' log)" -le 1 ]
}

# A file system that is full for a while: saves fail, lines of metrics.jsonl wait, and all is well in the end.
full() {
    mkdir disk && mount -t tmpfs -o size=12m none disk 2>/dev/null || return 0 # no right to mount here
    SHIM_SLOW=500 struck 0 2 disk/run $steps &
    wait_for eval '[ "$(newest disk/run)" -ge 4 ]'
    wait_for eval 'cat /dev/zero >>disk/filler 2>/dev/null; grep -q "its lines wait in memory" log'
    wait_for eval 'grep -q "not written.*No space left" log'
    rm disk/filler
    wait $!
    local code=$?
    case $code in
    0) grep -q 'is written again' log && finished disk/run ;;
    6) grep -q 'the run is done, but' log && train 1 disk/run $steps && finished disk/run ;; # it ended while there was no room
    *) cat log && false ;;
    esac
    code=$?
    umount -l disk
    return $code
}

if [ "$stride" = 1 ]; then
    for why in ENOSPC EIO EROFS EACCES EMFILE EDQUOT; do fails 1 0 1 1 $why; done
    fails 2 0 1 1 EIO
    fails 2 1 1 1 ENOSPC
else
    fails 1 0 1 "$stride" ENOSPC
    fails 2 0 5 "$stride" EIO
    fails 2 1 3 "$stride" EDQUOT
fi
check "half of every write" patient short
for call in 3 9 30; do check "the disk fails from call $call on" fails_on $call; done
check "checkpoints deleted meanwhile" deleted
check "a full disk" full

last() {
    SHIM_RULES="$storm_steps:9:ENOSPC" struck 0 1 last $steps
    [ $? = 6 ] && intact last && [ "$(newest last)" = $((storm_steps - 1)) ]
}
check "the last save fails: exit code 6, older ones are whole" last
check "the same again: it is saved" train 1 last $steps
check "and all is well" finished last
echo "ok $(awk '{ n += $1 } END { print n }' tried) calls failed in all"

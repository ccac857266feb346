#!/bin/bash
# Saves that fail, at every call into the file system, for every reason: training goes on and ends with the same bits,
# older checkpoints are intact, one message names the file and the cause, nothing is left over, and the next save works.
#
#   tests/mpi_save_failures.sh [STRIDE]      every STRIDE-th call; `make crash-storm`: every one, for every reason
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
stride=${1:-13}
storm_steps=60
source "$(dirname "$0")/storm.sh"
steps="--train.steps=$storm_steps --checkpoint.keep=3"

declare -A means=([ENOSPC]="No space left on device" [EIO]="Input/output error" [EROFS]="Read-only file system"
    [EACCES]="Permission denied" [EMFILE]="Too many open files" [EDQUOT]="Disk quota exceeded")

# The run ended well; each save of the list failed with one message, which names a file and the cause.
told() { # run, cause or nothing, steps...: that many messages and no others
    local run=$1 cause=$2 step
    shift 2
    finished "$run" || return
    for step; do
        grep -qE "^caracal: (checkpoint of step $step not written|an older checkpoint stays): $run/checkpoints.*: $cause" log ||
            grep -qE "^caracal: checkpoint of step $((step + 1)) not written: $run/checkpoints.*: $cause" log ||
            { echo "nothing said of the failure at step $step"; return 1; }
    done
    [ "$(grep -c '^caracal:' log)" = $# ] || { echo "$# failures, and these messages:"; grep '^caracal:' log; return 1; }
}

# Lets every stride-th call of a save fail, each in a save of its own, with a save that works in between.
calls_fail() { # ranks, the rank that counts, first call, stride, reason...
    local ranks=$1 rank=$2 call=$3 by=$4 why step rules fired tried=0 end run=fail-$1-$2
    shift 4
    end=$(calls_of_save "$ranks" "$rank")
    while [ "$call" -le "$end" ]; do
        for why; do
            rules=""
            for ((step = 2; step < storm_steps && call + (step / 2 - 1) * by <= end; step += 2)); do
                rules+=" $step:$((call + (step / 2 - 1) * by)):$why"
            done
            rm -rf "$run" trace
            SHIM_RANK=$rank SHIM_RULES=${rules# } SHIM_TRACE=$out/trace struck 0 "$ranks" "$run" $steps
            code=$?
            fired=$(awk '$4 != 0 { print $1 }' trace)
            # shellcheck disable=SC2086
            if [ $code = 0 ] && told "$run" "${means[$why]}" $fired >check.log 2>&1; then
                tried=$((tried + $(wc -w <<<"$fired")))
            else
                not_ok "$why at calls $call, $((call + by)) ... of rank $rank of $ranks: exit code $code"
                cat check.log
                return
            fi
        done
        call=$((call + (storm_steps / 2 - 1) * by))
    done
    ok "$tried calls of saves failed, rank $rank of $ranks: $*"
    total=$((total + tried))
}
calls_of_save() { # ranks, rank: the most calls that a save of it makes
    rm -rf count trace
    SHIM_RANK=$2 SHIM_TRACE=$out/trace struck 0 "$1" count --train.steps=6 --checkpoint.keep=3
    awk '$1 > 0 && $2 > most { most = $2 } END { print most }' trace
}

# Half of every write, and signals that interrupt it: nothing to tell.
patient() { # action
    SHIM_RULES="2:1-:$1" struck 0 1 "patient-$1" $steps && told "patient-$1" ""
}

# The disk fails from some call on to the end of a save, the tidying up included; the next one tidies up.
fails_on() { # call, step
    SHIM_RULES="$2:$1-:EIO" struck 0 1 "on-$1" $steps && told "on-$1" "Input/output error" "$2"
}

wait_for() { # what must come true within a minute
    for _ in $(seq 600); do
        eval "$1" && return
        sleep 0.1
    done
    return 1
}
# The directory goes away under a run.
deleted() {
    SHIM_SLOW=200 struck 0 2 deleted $steps &
    wait_for '[ "$(newest deleted)" -ge 4 ]' && rm -rf deleted/checkpoints
    wait $! && finished deleted && [ "$(grep -c '^caracal:' log)" -le 1 ]
}

# A file system that is full for a while: saves fail, lines of metrics.jsonl wait, and all is well in the end.
full() {
    mkdir disk && mount -t tmpfs -o size=12m none disk 2>/dev/null || return 0 # no right to mount here
    SHIM_SLOW=200 struck 0 2 disk/run $steps &
    wait_for '[ "$(newest disk/run)" -ge 4 ]' && cat /dev/zero >disk/filler 2>/dev/null
    wait_for '[ "$(grep -c "not written.*No space left" log)" -ge 3 ]'
    rm disk/filler
    wait $!
    local code=$?
    finished disk/run && [ $code = 0 ] && grep -q 'its lines wait in memory' log && grep -q 'is written again' log
    code=$?
    umount -l disk
    return $code
}
# The same for one that turns read-only.
read_only() {
    mkdir -p ro && mount -t tmpfs none ro 2>/dev/null || return 0
    SHIM_SLOW=200 struck 0 1 ro/run $steps &
    wait_for '[ "$(newest ro/run)" -ge 4 ]'
    for _ in $(seq 200); do mount -o remount,ro ro 2>/dev/null && break; done # busy while a file is open for writing
    mount -o remount,rw ro
    wait $! && finished ro/run
    local code=$?
    umount -l ro
    return $code
}

total=0
if [ "$stride" = 1 ]; then
    for why in ENOSPC EIO EROFS EACCES EMFILE EDQUOT; do calls_fail 1 0 1 1 $why; done
    calls_fail 2 0 1 2 EIO
    calls_fail 2 1 1 2 ENOSPC
else
    calls_fail 1 0 1 "$stride" ENOSPC
    calls_fail 2 0 5 "$stride" EIO
    calls_fail 2 1 3 "$stride" EDQUOT
fi
check "half of every write" patient short
check "the disk fails from call 3 on" fails_on 3 4
check "the disk fails from call 100 on" fails_on 100 4
check "the disk fails from call 240 on" fails_on 240 4
check "checkpoints deleted meanwhile" deleted
check "a full disk" full
SHIM_RULES="$storm_steps:100:ENOSPC" struck 0 1 last $steps
check "the last save fails: exit code 6" test $? = 6
check "the last save fails: older ones are whole" intact last
check "run again, it is saved" train 1 last $steps
check "and all is well" finished last
ok "$total failures in all"
exit $failed

#!/bin/bash
# A run that is killed again and again, SIGKILL, at random instants and at calls into the file system, and goes on
# each time on some number of ranks, is the run that was never killed: weights, checkpoints, metrics, byte for byte.
# No torn checkpoint is ever there under a checkpoint's name, and no complete one is ever lost.
#
#   tests/mpi_crash.sh [KILLS] [SEED]      `make crash-storm` kills 1,000 times, and at every call of a save
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
kills=${1:-100}
RANDOM=${2:-4}
storm_steps=40
source "$(dirname "$0")/storm.sh"
steps="--train.steps=$storm_steps --checkpoint.keep=2"

# After a kill: the newest checkpoint is no older than before, all are whole; and what ran had begun from the newest.
survived() { # run, newest before
    local now
    now=$(newest "$1")
    [ "$now" -ge "$2" ] || { echo "step $2 was there, and now the newest is $now"; return 1; }
    intact "$1" || return
    grep -E 'skipped|is used instead|not written' log && return 1
    ! grep -q '^resuming' log || grep -qE "^resuming +$1/checkpoints/step-0*$2\$" log ||
        { echo "did not go on from step $2"; return 1; }
}

# Dies at every stride-th call of a save, before, in the middle of or after it; the last life meets no such call and ends.
at_every_call() { # ranks, the rank that counts, stride, action
    local ranks=$1 rank=$2 stride=$3 action=$4 run=call-$1-$2-$4 deaths=0 call=1 before code
    while :; do
        before=$(newest "$run")
        SHIM_RANK=$rank SHIM_RULES="$((before + 1)):$call:$action" \
            struck 0 "$ranks" "$run" $steps
        code=$?
        [ $code = 137 ] || break
        survived "$run" "$before" >check.log 2>&1 || {
            not_ok "$action at call $call of rank $rank of $ranks"
            cat check.log
            return
        }
        deaths=$((deaths + 1))
        call=$((call + 1 + (stride > 1 ? RANDOM % (2 * stride - 1) : 0)))
    done
    check "$action at $deaths calls of one save, rank $rank of $ranks" finished "$run" 1
    died=$((died + deaths))
    rm -rf "$run"
}

# Dies at random instants: the whole job mostly, one rank now and then, at a random call now and then.
life() { # run, life's number: kills it once, or it ends
    local run=$1 before ranks code switch wanted=137
    before=$(newest "$run")
    ranks=${rank_choice[RANDOM % ${#rank_choice[@]}]}
    switch=("$(awk -v r=$RANDOM -v most="${most[$ranks]}" 'BEGIN { printf "%.4f", 0.01 + most * r / 32768 }')")
    unset SHIM_RULES SHIM_RANK
    case $(($2 % 20)) in
    7) [ "$ranks" = 1 ] || { switch=(--rank=$((RANDOM % ranks)) "${switch[@]}"); wanted=9; } ;;
    3 | 11 | 15)
        export SHIM_RANK=$((RANDOM % ranks)) SHIM_RULES="$((before + 1 + RANDOM % 3)):$((1 + RANDOM % 250)):killhalf"
        ;;
    esac
    struck "${switch[@]}" "$ranks" "$run" $steps
    code=$?
    if [ $code = 0 ]; then return 1; fi
    lives=$((lives + 1))
    [ $code = $wanted ] || [ $code = 137 ] || { not_ok "life $lives on $ranks ranks: exit code $code"; return 1; }
    survived "$run" "$before" >check.log 2>&1 && return 0
    not_ok "kill $lives, of $ranks ranks, ${switch[*]} s"
    cat check.log
    return 1
}

died=0
if [ "$kills" -ge 1000 ]; then
    for action in kill killhalf killafter; do at_every_call 1 0 1 $action; done
    at_every_call 2 0 4 killafter
    at_every_call 2 1 4 killhalf
    at_every_call 4 3 8 killafter
else
    at_every_call 1 0 20 killafter
    at_every_call 2 0 40 killhalf
    at_every_call 2 1 40 kill
fi

# how long a life may be: enough for some steps and saves
declare -A most
for ranks in 1 2 4; do
    began=$EPOCHREALTIME
    train $ranks time-$ranks --train.steps=6 >log 2>&1 || not_ok "6 steps on $ranks ranks"
    most[$ranks]=$(awk "BEGIN { print 1.5 * (${EPOCHREALTIME/,/.} - ${began/,/.}) }")
    rm -r time-$ranks
done
rank_choice=(1 1 1 1 1 2 2 4)
lives=0
runs=0
while [ $((died + lives)) -lt "$kills" ] && [ $failed = 0 ]; do
    runs=$((runs + 1))
    while [ $((died + lives)) -lt "$kills" ]; do life run-$runs $lives || break; done
    unset SHIM_RULES SHIM_RANK
    [ $failed = 0 ] || break
    train ${rank_choice[RANDOM % 8]} run-$runs $steps >log 2>&1
    check "run $runs, $((died + lives)) kills so far" finished run-$runs 1
    rm -rf run-$runs
done
[ $failed = 0 ] && ok "$lives kills at random instants of $runs runs, $died at calls of one save"
exit $failed

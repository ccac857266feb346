#!/bin/bash
# A run that is killed again and again, SIGKILL, at random instants and at calls into the file system, and goes on
# each time on some number of ranks, is the run that was never killed: weights, checkpoints, metrics, byte for byte.
# No torn checkpoint is ever there under a checkpoint's name, and no complete one is ever lost.
#
#   tests/mpi_crash.sh [KILLS] [SEED]      KILLS at random instants; `make crash-storm`: 1,000, and every call of a save
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
kills=${1:-100}
RANDOM=${2:-4}
storm_steps=40
. "$(dirname "$0")/storm.sh"
steps="$small --checkpoint.keep=2"

# After a kill: no older than before, all whole; and what was killed had begun from the newest, without complaint.
survived() { # run, newest before
    local now
    now=$(newest "$1")
    [ "$now" -ge "$2" ] || { echo "step $2 was there, and now the newest is $now"; return 1; }
    intact "$1" || return
    grep -E 'skipped|is used instead|not written' log && return 1
    ! grep -q '^resuming' log || grep -qE "^resuming +$1/checkpoints/step-0*$2\$" log ||
        { echo "did not go on from step $2"; cat log; return 1; }
}

# Dies at every stride-th call of a save, before, in the middle of or after it; the last life meets no such call.
at_every_call() { # ranks, the rank that counts, stride, action
    local ranks=$1 rank=$2 stride=$3 action=$4 run=call-$1-$2-$4 deaths=0 call=1 before code
    while :; do
        before=$(newest "$run")
        SHIM_RANK=$rank SHIM_RULES="$((before + 1)):$call:$action" struck 0 "$ranks" "$run" $steps
        code=$?
        [ $code = 137 ] || break
        survived "$run" "$before" || { echo "$action at call $call"; return 1; }
        deaths=$((deaths + 1))
        call=$((call + 1 + (stride > 1 ? RANDOM % (2 * stride - 1) : 0)))
    done
    [ $code = 0 ] && finished "$run" 1 && [ $deaths != 0 ] || { echo "exit code $code after $deaths deaths"; return 1; }
    rm -rf "$run"
    echo $deaths >>deaths
}
calls() {
    check "$4 at every call of one save ($3: 1 in $3), rank $2 of $1" at_every_call "$@" || exit 1
}

# Kills a run once, or lets it end: the whole job mostly, one rank now and then, at a random call now and then.
life() { # run, life's number; 1: it ended, 2: something is wrong
    local run=$1 before ranks code switch wanted=137
    before=$(newest "$run")
    ranks=${rank_choice[RANDOM % ${#rank_choice[@]}]}
    switch=("$(awk -v r=$RANDOM -v most="${most[$ranks]}" 'BEGIN { printf "%.4f", 0.01 + most * r / 32768 }')")
    unset SHIM_RULES SHIM_RANK
    case $(($2 % 20)) in
    7) [ "$ranks" = 1 ] || { switch=(--rank=$((RANDOM % ranks)) "${switch[@]}"); wanted=9; } ;;
    3 | 11 | 15)
        export SHIM_RANK=$((RANDOM % ranks)) SHIM_RULES="$((before + 1 + RANDOM % 3)):$((1 + RANDOM % 45)):killhalf"
        ;;
    esac
    struck "${switch[@]}" "$ranks" "$run" $steps
    code=$?
    [ $code = 0 ] && return 1
    lives=$((lives + 1))
    [ $code = $wanted ] || [ $code = 137 ] || { echo "exit code $code"; cat log; return 2; }
    survived "$run" "$before" || return 2
}

if [ "$kills" -ge 1000 ]; then
    for action in kill killhalf killafter; do calls 1 0 1 $action; done
    calls 2 0 1 killafter
    calls 2 1 1 killhalf
    calls 4 1 1 killafter
else
    calls 1 0 5 killafter
    calls 2 0 8 killhalf
    calls 2 1 2 kill
fi

# how long a life may be: enough for some steps and saves
declare -A most
for ranks in 1 2 4; do
    began=$EPOCHREALTIME
    train $ranks time-$ranks $steps --train.steps=6 >log 2>&1
    most[$ranks]=$(awk "BEGIN { print 1.5 * (${EPOCHREALTIME/,/.} - ${began/,/.}) }")
    rm -r time-$ranks
done
rank_choice=(1 1 1 1 1 2 2 4)
lives=0
for ((run = 1; lives < kills; run++)); do
    code=0
    while [ $lives -lt "$kills" ] && [ $code = 0 ]; do
        life run-$run $lives >life.log
        code=$?
    done
    unset SHIM_RULES SHIM_RANK
    [ $code != 2 ] || { echo "not ok kill $lives at a random instant, of run $run"; tail -n 25 life.log; exit 1; }
    train ${rank_choice[RANDOM % 8]} run-$run $steps >log 2>&1
    check "run $run, $lives kills so far" finished run-$run 1 || exit 1
    rm -rf run-$run
done
echo "ok $lives kills at random instants of $((run - 1)) runs, $(awk '{ n += $1 } END { print n }' deaths) at calls of one save"

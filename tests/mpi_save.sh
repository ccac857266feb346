#!/bin/bash
# Saving while training goes on, with real processes and a disk that is slow (tests/shim_fs.c): the run is the run on a
# fast disk, whatever its number of ranks, and a run that ends, however it ends, first lets the disk have what it began to
# save.  A disk that fails: mpi_save_failures.sh; ranks that are killed: mpi_crash.sh.
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
storm_steps=12
. "$(dirname "$0")/storm.sh"

slowly() { # microseconds a call, ranks, run, options...: becomes that run
    local slow=$1 ranks=$2 run=$3 launcher=()
    shift 3
    mkdir -p "$run/checkpoints"
    [ "$ranks" = 1 ] || launcher=("$top/launch/run" -np "$ranks")
    # shellcheck disable=SC2086
    SHIM_SLOW=$slow SHIM_UNDER=$out/$run/checkpoints exec env LD_PRELOAD="$bin/shim_fs.so" "${launcher[@]}" \
        "$caracal" train tiny.yaml --run.dir="$run" $small --checkpoint.keep=100000 --train.log_every=1 "$@" >log 2>&1
}
before() { # pattern, pattern: did the log first say this before it first said that?
    local a b
    a=$(grep -nE -- "$1" log | head -n 1 | cut -d: -f1)
    b=$(grep -nE -- "$2" log | head -n 1 | cut -d: -f1)
    [ -n "$a" ] && [ -n "$b" ] && [ "$a" -lt "$b" ] && return
    echo "'$1' (line $a) does not come before '$2' (line $b)"
    return 1
}
has() { # run, step...: these checkpoints and nothing else, each the undisturbed run's
    local run=$1 step want=
    shift
    for step; do want+=$(printf 'step-%08d ' "$step"); done
    [ "$(ls "$run/checkpoints" | tr '\n' ' ')" = "$want" ] || { ls "$run/checkpoints"; return 1; }
    intact "$run"
}
saving() { # run, step: waits until that save is under way
    wait_for test -d "$1/checkpoints/$(printf 'step-%08d.tmp' "$2")"
}

meanwhile() { # ranks: steps are made while a save is under way
    (slowly 3000 "$1" "slow$1" --checkpoint.every=5 --checkpoint.threads="$1") &&
        before "^step 7/" "^checkpoint of step 5:" && has "slow$1" 5 10 12 &&
        cmp "slow$1/metrics.jsonl" base/metrics.jsonl
}
for ranks in 1 2 4; do check "steps go on while $ranks ranks save" meanwhile $ranks; done

pressed() { # each save waits for the one before, and says so
    (slowly 2000 2 pressed) && before "^checkpoint of step 3: .* waited" "^step 5/" && has pressed $(seq 12) &&
        finished pressed
}
check "a save after every step" pressed
stalls() { [ "$(grep -c '"checkpoint_stall_seconds":[0-9]' pressed/timing.jsonl)" = 12 ]; }
check "timing.jsonl has every stall" stalls

exploded() { # the loss is not finite while a save is under way: that save is complete
    (slowly 3000 2 exploded --optim.lr=1e17 --optim.clip=0)
    [ $? = 5 ] && [ -z "$(ls -d exploded/checkpoints/*.tmp 2>/dev/null)" ] && [ "$(newest exploded)" -ge 1 ] &&
        "$caracal" verify exploded/checkpoints/step-0*"$(newest exploded)"
}
check "a run that stops for a non-finite loss while it saves" exploded
asked() { # the save under way and the one that was asked for are complete
    slowly 3000 2 asked --checkpoint.every=2 &
    local run=$! code
    saving asked 4 || return
    kill -USR1 $run
    wait $run
    code=$?
    [ $code = 75 ] || { echo "exit code $code"; cat log; return 1; }
    [ -z "$(ls -d asked/checkpoints/*.tmp 2>/dev/null)" ] && [ "$(newest asked)" -ge 4 ] && intact asked
}
check "a run that is asked to leave while it saves" asked
interrupted() { # out at once; what was half saved is never loaded, and the next run clears it away
    slowly 3000 1 interrupted --checkpoint.every=2 &
    local run=$! was
    saving interrupted 4 || return
    kill -INT $run
    wait $run
    [ $? = 130 ] || return
    was=$(newest interrupted)
    # shellcheck disable=SC2086
    intact interrupted && train 1 interrupted $small --checkpoint.keep=100000 >log 2>&1 &&
        grep -q "resuming .*step-0*$was\$" log && finished interrupted
}
check "a run that is interrupted while it saves" interrupted

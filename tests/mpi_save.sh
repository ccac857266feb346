#!/bin/bash
# Saving while training goes on, with real processes and a disk that is slow or broken (tests/shim_fs.c): the run is the
# run on a good disk, whatever its number of ranks; what fails in the background is told and harms nothing; and a run that
# ends, however it ends, first lets the disk have what it began to save.
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
storm_steps=12
source "$(dirname "$0")/storm.sh"
all="--train.steps=$storm_steps --checkpoint.keep=100000"

shim_exec() { # ranks, run, options...: becomes that run; settings of the shim stand in the environment
    local ranks=$1 run=$2
    shift 2
    mkdir -p "$run/checkpoints"
    # shellcheck disable=SC2046,SC2086
    SHIM_UNDER=$out/$run/checkpoints exec env LD_PRELOAD="$shim" $(launcher "$ranks") "$caracal" train tiny.yaml $small \
        --run.dir="$run" $all "$@" >log 2>&1
}
shimmed() { (shim_exec "$@"); }
line() { grep -nE -- "$1" log | head -n 1 | cut -d: -f1; } # where the log first says so
# Did the log say this before that?
before() {
    local a b
    a=$(line "$1") b=$(line "$2")
    [ -n "$a" ] && [ -n "$b" ] && [ "$a" -lt "$b" ] || { echo "'$1' (line $a) does not come before '$2' (line $b)"; return 1; }
}
has() { # run, step...: these and no other checkpoints, each the undisturbed run's
    local run=$1 step want=
    shift
    for step; do want+=$(printf 'step-%08d ' "$step"); done
    [ "$(ls "$run/checkpoints" | tr '\n' ' ')" = "$want" ] || { ls "$run/checkpoints"; return 1; }
    intact "$run"
}

# ---- a slow disk ----

slow() { # ranks: a save takes longer than many steps; they are made meanwhile
    SHIM_SLOW=3000 shimmed "$1" "slow$1" --checkpoint.every=5 --train.log_every=1 --checkpoint.threads="$1" &&
        before "^step 7/" "^checkpoint of step 5:" && has "slow$1" 5 10 12 &&
        cmp "slow$1/metrics.jsonl" base/metrics.jsonl
}
for ranks in 1 2 4; do check "steps go on while $ranks ranks save" slow $ranks; done
pressed() { # a checkpoint after every step: each save waits for the one before
    SHIM_SLOW=2000 shimmed 2 pressed --train.log_every=1 && finished pressed &&
        before "^checkpoint of step 3: .* waited" "^step 5/" && has pressed $(seq 12)
}
check "a save after every step, on a slow disk" pressed
stalls() { # timing.jsonl tells how long training stood still, on every line
    [ "$(grep -c '"checkpoint_stall_seconds":[0-9]' pressed/timing.jsonl)" = 12 ]
}
check "timing.jsonl has every stall" stalls

# ---- a broken disk ----

broken() { # rank, rule: one message, no checkpoint of that step, and all others as ever
    local run=broken$1
    SHIM_RANK=$1 SHIM_RULES="5:$2" shimmed 4 "$run" || return
    [ "$(grep -c 'not written' log)" = 1 ] && grep -q 'checkpoint of step 5 not written: .*step-00000005.tmp' log &&
        has "$run" 1 2 3 4 6 7 8 9 10 11 12 && cmp "$run/metrics.jsonl" base/metrics.jsonl
}
check "no room on rank 1 of 4" broken 1 "6-:ENOSPC"
check "an I/O error on rank 0 of 4" broken 0 "30:EIO"
last() { # the last checkpoint fails: the run says so with its exit code
    SHIM_RANK=1 SHIM_RULES="12:6-:EIO" shimmed 2 last
    [ $? = 6 ] && grep -q 'its last checkpoint was not written' log && has last $(seq 11)
}
check "the last save fails" last

# ---- ends ----

exploded() { # non-finite right after a save began
    SHIM_SLOW=3000 shimmed 2 exploded --optim.lr=1e17 --optim.clip=0 --train.on_nonfinite=stop --checkpoint.every=1
    [ $? = 5 ] && [ -z "$(ls -d exploded/checkpoints/*.tmp 2>/dev/null)" ] && [ "$(newest exploded)" -ge 1 ] &&
        "$caracal" verify exploded/checkpoints/step-0*"$(newest exploded)"
}
check "a run that stops for a non-finite loss" exploded

asked() { # USR1 while a save is under way: the one begun and the one asked for are complete
    SHIM_SLOW=3000 shim_exec 2 asked --checkpoint.every=2 --train.log_every=1 &
    local run=$! code
    for _ in $(seq 300); do
        [ -d asked/checkpoints/step-00000004.tmp ] && break
        sleep 0.02
    done
    kill -USR1 $run
    wait $run
    code=$?
    [ $code = 75 ] || { echo "exit code $code"; return 1; }
    [ -z "$(ls -d asked/checkpoints/*.tmp 2>/dev/null)" ] && [ "$(newest asked)" -ge 4 ] && intact asked
}
check "a run that is asked to leave while it saves" asked
interrupted() { # INT: at once; what was half saved is never loaded, and the next run clears it away
    SHIM_SLOW=3000 shim_exec 1 interrupted --checkpoint.every=2 --train.log_every=1 &
    local run=$! was
    for _ in $(seq 300); do
        [ -d interrupted/checkpoints/step-00000004.tmp ] && break
        sleep 0.02
    done
    kill -INT $run
    wait $run
    [ $? = 130 ] || return
    was=$(newest interrupted)
    intact interrupted && train 1 interrupted $all >log 2>&1 && grep -q "resuming .*step-0*$was\$" log &&
        finished interrupted
}
check "a run that is interrupted while it saves" interrupted
exit $failed

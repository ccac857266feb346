#!/bin/bash
# Sweeps with real runs: the same results on 1, 2 and 4 ranks and after a kill, each trial being the run that `train`
# would have made, and a config for a wider model that trains.
# shellcheck disable=SC2086,SC2154
set -u
. "$(dirname "$0")/tiny.sh"
sed -i -e 's/seq_len: 256/seq_len: 64/' -e 's/steps: 6/steps: 4/' -e 's/every: 3,/every: 2,/' tiny.yaml

grid="--over=optim.lr=1e-3:1e5:log:3 --over=init.hidden_std=0.02,0.05"
sweep() { # ranks, directory, options...
    local ranks=$1 dir=$2
    shift 2
    if [ "$ranks" = 1 ]; then "$caracal" sweep tiny.yaml --run.dir="$dir" "$@"
    else "$top/launch/run" -np "$ranks" "$caracal" sweep tiny.yaml --run.dir="$dir" "$@"; fi
}
variant() { # ranks, directory, options...: the bits of one rank, trials included
    local trial
    sweep "$1" "$2" $grid "${@:3}" && cmp one/results.jsonl "$2/results.jsonl" || return
    for trial in one/trial-*; do same "$trial" "$2/${trial#one/}" || return; done
}
grid_in_order() { # six trials, the first key running fastest; what diverges is a result
    cat one/results.jsonl
    diff <(sed -E 's/.*"values":\{([^}]*)\},"status":"([a-z]*)".*/\1 \2/' one/results.jsonl) - <<'END'
"optim.lr":0.001,"init.hidden_std":0.02 done
"optim.lr":10.0,"init.hidden_std":0.02 done
"optim.lr":100000.0,"init.hidden_std":0.02 diverged
"optim.lr":0.001,"init.hidden_std":0.05 done
"optim.lr":10.0,"init.hidden_std":0.05 done
"optim.lr":100000.0,"init.hidden_std":0.05 diverged
END
}
a_trial_is_a_run() { # trial 4 by hand
    train 2 alone --optim.lr=0.001 --init.hidden_std=0.05 && same alone one/trial-0004 &&
        diff <(grep -v '  dir:' alone/config.yaml) <(grep -v '  dir:' one/trial-0004/config.yaml)
}
losses() { # what results.jsonl says is what the trial's own files say
    awk '{ print }' one/trial-0004/metrics.jsonl | tail -n 1 | sed -E 's/.*"lm_loss":([0-9.]*).*/\1/' >train.loss
    tail -n 1 one/trial-0004/eval.jsonl | sed -E 's/.*"loss":\{[^}]*"total":([0-9.]*).*/\1/' >held.loss
    sed -n 4p one/results.jsonl | grep -F "\"train_loss\":$(cat train.loss),\"held_out_loss\":$(cat held.loss)}"
}
sorted() { # the table on the console: best first, diverged last
    sed -n '/^trial  *optim/,/^results/p' log.one | awk '$1 ~ /^[0-9]+$/ { print $4 }' >order
    cat log.one
    [ "$(grep -c diverged order)" = 2 ] && [ "$(tail -n 2 order | sort -u)" = diverged ] && head -n 4 order | sort -gc &&
        [ "$(head -n 1 order)" != "" ]
}
nothing_again() { # a finished sweep is read, not run; even if the program has one more key by now
    sed -i '/router.bias_budget_gain/d' one/sweep.json && cp one/results.jsonl kept && sweep 2 one $grid >again && ! grep '^trial . of' again && cmp kept one/results.jsonl &&
        test ! -e one/.claims
}
killed() { # in the middle of a trial, past its first checkpoint, if the clock is kind; then it goes on
    local sweep_run
    "$caracal" sweep tiny.yaml --run.dir=killed $grid >killed.log 2>&1 &
    sweep_run=$!
    wait_for test -e killed/trial-0003
    kill -9 "$sweep_run"
    wait "$sweep_run" 2>/dev/null
    [ -e killed/trial-0001/result.json ] && [ ! -e killed/results.jsonl ] && touch killed/.claims/5 && variant 2 killed
}
in_between() { # as a kill leaves it: a checkpoint and lines beyond it; a trial whose result was not written; a fresh one
    cp -r one between && rm -r between/results.jsonl between/trial-0004/result.json between/trial-0005 \
        between/trial-0001/result.json between/trial-0001/checkpoints/step-00000004 &&
        echo '{"step":' >>between/trial-0001/metrics.jsonl && variant 1 between &&
        grep -q '^resuming .*step-00000002' between/trial-0001/console.log &&
        ! grep -q '^resuming' between/trial-0005/console.log
}
asked() { # to stop, as by a scheduler: exit code 75, and the same command goes on
    local sweep_run code
    "$caracal" sweep tiny.yaml --run.dir=asked $grid >asked.log 2>&1 &
    sweep_run=$!
    wait_for test -e asked/trial-0002
    kill -TERM "$sweep_run"
    wait "$sweep_run"
    code=$?
    cat asked.log
    [ "$code" = 75 ] && [ ! -e asked/results.jsonl ] && sweep 1 asked $grid && cmp one/results.jsonl asked/results.jsonl &&
        cmp one/trial-0002/metrics.jsonl asked/trial-0002/metrics.jsonl
}
random() { # three, and then two more: the first three stay
    sweep 2 random --over=optim.lr=1e-4:1e-2:log --trials=3 && cp random/results.jsonl three &&
        sweep 1 random --over=optim.lr=1e-4:1e-2:log --trials=5 >more && ! grep -E '^trial [123] of' more &&
        cmp three <(head -n 3 random/results.jsonl) && [ "$(wc -l <random/results.jsonl)" = 5 ] &&
        [ "$(sed -E 's/.*"optim.lr":([^}]*).*/\1/' random/results.jsonl | sort -u | wc -l)" = 5 ]
}
transferred() { # the wider model's own config with the best values; it trains, and with the scaled rate
    sed -e 's/hidden_size: 48/hidden_size: 96/' -e 's/^optim: .*/optim:\n  lr: 1e-9     # to be found\n  schedule_steps: 12/' \
        -e '/^run:/s/$/  # its own/' tiny.yaml >wide.yaml
    sweep 1 one $grid --target=wide.yaml --out=target.yaml || return
    best=$(sed -n 's/.*"trial":\([0-9]*\),.*"optim.lr":\([^,]*\),"init.hidden_std":\([^}]*\).*"held_out_loss":\([0-9.]*\).*/\4 \2 \3/p' \
        one/results.jsonl | sort -g | head -n 1)
        set -- $best
    diff wide.yaml target.yaml
    grep -qF "lr: $2     # to be found" target.yaml && grep -qF "# its own" target.yaml &&
        "$caracal" train target.yaml --run.dir=wide --train.steps=2 && "$caracal" train wide.yaml --run.dir=by-hand --train.steps=2 \
        --optim.lr="$2" --init.hidden_std="$3" --transfer.proxy_width=48 && same by-hand wide
}
without_held_out() { # then the training loss decides
    sed 's/, valid: [a-z.]*//' tiny.yaml >unheld.yaml
    "$caracal" sweep unheld.yaml --run.dir=unheld --over=optim.lr=1e-3,1e-2 >log.unheld && cat log.unheld &&
        ! grep held_out unheld/results.jsonl && [ "$(grep -c train_loss unheld/results.jsonl)" = 2 ]
}

check "1 rank" sweep 1 one $grid
sweep 1 one $grid >log.one 2>&1
check "every point of the grid" grid_in_order
check "a trial is the run that train would have made" a_trial_is_a_run
check "the losses are the run's" losses
check "a table, best first" sorted
check "2 ranks" variant 2 two
check "4 ranks" variant 4 four
check "4 ranks, 2 to a trial" variant 4 pairs --ranks-per-trial=2
check "done is done" nothing_again
check "killed, and on" killed
check "killed at awkward moments" in_between
check "asked to stop, and on" asked
check "a random search, and a longer one" random
check "a config for a wider model" transferred
check "no held-out text" without_held_out
check "a picture of two" "$caracal" sweep --picture=both.svg "left=one,two" "right=four"

refuses "an unknown key" 2 "did you mean optim.lr?" sweep 1 bad --over=optim.lrr=1,2
refuses "a key that is no number" 2 "is no number" sweep 1 bad --over=device=ref,cpu
refuses "an empty range" 2 "an empty range" sweep 1 bad --over=optim.lr=1e-2:1e-3:log
refuses "a value that no trial can have" 2 "trial 2: tiny.yaml:21: optim.schedule_steps = 12: must be at least 21" sweep 1 bad --over=optim.warmup_steps=3,20
refuses "nothing to search" 2 "nothing to search" sweep 1 bad
refuses "ranks that do not divide" 2 "--ranks-per-trial=2 does not divide the 3 ranks" sweep 3 bad --ranks-per-trial=2 \
    --over=optim.lr=1,2
refuses "a narrower target" 2 "model.hidden_size = 48 is narrower than the proxy's 96" "$caracal" sweep wide.yaml \
    --run.dir=bad --over=optim.lr=1,2 --target=tiny.yaml --out=x.yaml
refuses "a target without a place" 2 "--target and --out go together" sweep 1 bad --over=optim.lr=1,2 --target=tiny.yaml
check "nothing is left of what was refused" test ! -e bad
refuses "another grid" 2 "--over=optim.lr is 1, 2, was 0.001, 10, 100000; --over=init.hidden_std is no longer there" \
    sweep 1 one --over=optim.lr=1,2
refuses "another config" 2 "optim.beta1 is 0.5, was 0.9; train.steps is 5, was 4" sweep 2 one $grid --optim.beta1=0.5 --train.steps=5
refuses "the directory of a run" 2 "is the directory of a run; a sweep needs its own" sweep 1 alone --over=optim.lr=1,2
cp -r two lost && rm lost/sweep.json
refuses "trials of nobody knows what" 2 "has trials, but no sweep.json" sweep 1 lost $grid
cp -r two hurt && echo '{"trial":2,' >hurt/trial-0002/result.json
refuses "a damaged result" 3 "hurt/results.jsonl:2: is no trial's result" sweep 1 hurt $grid
refuses "every trial diverges" 5 "every trial diverged" sweep 1 hopeless --over=optim.lr=1e5,1e6
refuses "a directory that cannot be" 6 "/dev/null" sweep 1 /dev/null/x --over=optim.lr=1,2
refuses "a disk that takes nothing more" 6 "sweep.json.tmp: cannot be written" \
    bash -c 'ulimit -f 1; exec "$0" sweep tiny.yaml --run.dir=full --over=optim.lr=1e-3,1e-2' "$caracal"

#!/bin/bash
# Real runs that are asked to stop, or whose ranks hang: what is on disk, what the exit code says, and that no process
# is left behind.  A long step is a rank that was stopped for a while: that takes no processor and no luck.
set -um # -m: background jobs that do not ignore INT
. "$(dirname "$0")/tiny.sh"

endless="--train.steps=1000000 --checkpoint.every=0 --train.eval_every=0 --train.log_every=1000000"
processes() { # run: the pids of its ranks
    for p in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -q "caracal train .*--run.dir=$1 " && [ "$(cat "$p/comm")" = caracal ] &&
            [ "$p/cwd" -ef . ] && echo "${p#/proc/}"
    done
}
starts() { # run, options...: two ranks in the background; returns when they train, with $run
    local name=$1
    shift
    "$top/launch/run" -np 2 "$caracal" train tiny.yaml --run.dir="$name" $endless "$@" >"$name.log" 2>&1 &
    run=$!
    wait_for test -s "$name/metrics.jsonl" || { cat "$name.log"; return 1; }
}
ends() { # run, exit code: the run ends with it, and leaves nobody behind
    local code left
    wait "$run"
    code=$?
    cat "$1.log"
    wait_for eval 'left=$(processes '"$1"'); [ -z "$left" ]'
    echo "exit code $code, wanted $2; left behind: ${left:-nobody}"
    [ "$code" = "$2" ] && [ -z "$left" ]
}
saved() { # run: the last step that metrics.jsonl has is the one checkpoint, and it is whole; the report says why
    local last
    last=$(tail -n 1 "$1/metrics.jsonl" | sed 's/{"step":\([0-9]*\).*/\1/')
    ls "$1/checkpoints"
    grep -q "\"state\": \"stopped\"" "$1/status.json" && grep -q "step $last of 1000000" "$1/report.html" &&
        [ "$(ls "$1/checkpoints")" = "$(printf 'step-%08d' "$last")" ] && "$caracal" verify "$1"/checkpoints/step-*
}

long_step() { # signal: comes while a step takes ten seconds, and again
    local victim
    starts long-"$1" || return
    victim=$(processes long-"$1" | tail -n 1)
    kill -STOP "$victim"
    sleep 0.5
    kill "-$1" $run
    sleep 1
    kill "-$1" $run # the scheduler's second one
    sleep 9
    kill -CONT "$victim"
    ends long-"$1" 75 && saved long-"$1"
}
hung() { # a rank that never answers: the deadline names the operation
    local victim
    starts hung --wait_timeout=3s || return
    victim=$(processes hung | tail -n 1)
    kill -STOP "$victim"
    ends hung 4 && grep -E "rank [01] of 2 waited 3 s in .* #[0-9]+" hung.log && grep -q '"state": "running"' hung/status.json
}
impatient() { # asked, and again after five seconds while a rank hangs: out at once
    local victim
    starts impatient || return
    victim=$(processes impatient | tail -n 1)
    kill -STOP "$victim"
    kill -TERM $run
    sleep 6
    kill -TERM $run
    ends impatient 130
}
shared() { # a second run in the same directory is refused; after the first was killed, it goes on
    starts shared || return
    "$top/launch/run" -np 2 "$caracal" train tiny.yaml --run.dir=shared --train.steps=2 >second.log 2>&1
    [ $? = 2 ] && grep "shared: another run is writing here" second.log && kill -USR1 $run && ends shared 75 &&
        "$caracal" train tiny.yaml --run.dir=shared --train.steps=2
}
has_mpirun() {
    local child
    for child in $(cat /proc/$run/task/$run/children); do grep -qx mpirun "/proc/$child/comm" && return; done
    return 1
}
early() { # seconds after mpirun began: asked while everything is still starting
    "$top/launch/run" -np 2 "$caracal" train tiny.yaml --run.dir="early$1" $endless >"early$1.log" 2>&1 &
    run=$!
    wait_for has_mpirun 2>/dev/null
    sleep "$1"
    kill -USR1 $run
    ends "early$1" 75
}

# they mostly wait: side by side
for delay in 0 0.1 0.2 0.3 0.5 0.8; do check "asked $delay s after the start" early $delay; done &
check "TERM while a step takes ten seconds" long_step TERM &
check "USR1 while a step takes ten seconds" long_step USR1 &
check "a hung rank" hung &
check "asked again after five seconds" impatient &
check "two runs in one directory" shared &
wait

exit_code() { # wanted, command...
    local code
    "${@:2}"
    code=$?
    [ "$code" = "$1" ] || { echo "exit code $code, wanted $1"; return 1; }
}
check "--exit-after" exit_code 75 train 2 after $endless --exit-after=2s
check "leaves a checkpoint of its last step" saved after
goes_on() { # one more step each time, however late it is
    local steps
    steps=$(wc -l <after/metrics.jsonl)
    exit_code 75 train 1 after $endless --exit-after=1s && [ "$(wc -l <after/metrics.jsonl)" -gt "$steps" ]
}
check "and goes on from there" goes_on
check "a run that is done before" exit_code 0 train 2 early --exit-after=2h
refuses "no duration" 2 "exit-after = soon" train 1 bad --exit-after=soon

# launch/slurm.sbatch where there is no Slurm: its environment, and a scontrol that only says what it was asked
mkdir -p job/bin && ln -s "$top/launch" job/launch && ln -s "${caracal%/*}" job/build
cp tiny.yaml tokenizer.json ./*.train.* ./*.valid.* job
printf '#!/bin/sh\necho "scontrol $*"\n' >job/bin/scontrol
chmod +x job/bin/scontrol
job() { # signal, wanted exit code, run: a job that trains until it is signalled
    local code
    PATH=$out/job/bin:$PATH SLURM_SUBMIT_DIR=$out/job SLURM_JOB_ID=77 SLURM_JOBID=77 SLURM_NTASKS=2 SLURM_CPUS_PER_TASK=1 \
        SLURM_NODELIST=$(uname -n) SLURM_JOB_NODELIST=$(uname -n) SLURM_JOB_NUM_NODES=1 SLURM_TASKS_PER_NODE=2 \
        bash "$top/launch/slurm.sbatch" tiny.yaml --run.dir="$3" $endless >"$3.log" 2>&1 &
    run=$!
    wait_for test -s "job/$3/metrics.jsonl"
    kill "-$1" $run
    ends "$3" "$2" && saved "job/$3"
}
check "a Slurm job near its time limit" job USR1 0 limit
check "queues itself again" grep -x "scontrol requeue 77" limit.log
check "a Slurm job that is preempted" job TERM 75 preempted
check "leaves the queue to Slurm" eval '! grep scontrol preempted.log'

#!/bin/bash
# Training runs with real processes: the same bits across a resume on another number of ranks (all else that may differ
# without deciding numbers is tests/mpi_promises.sh's); and what happens when a run is misused.
set -u
. "$(dirname "$0")/tiny.sh"

resumed() { # ranks before, ranks after, run
    train "$1" "$3" --train.steps=3 && train "$2" "$3" && same base "$3"
}

check "one rank trains" train 1 base
check "resume 1 -> 2" resumed 1 2 resume12
check "resume 4 -> 1" resumed 4 1 resume41
check "resume 2 -> 8" resumed 2 8 resume28

unseen() { # what a run looks at on its way, and how often, changes nothing of it
    train 1 unseen --train.eval_every=0 --train.eval_samples=1 --checkpoint.every=0 --train.log_every=1 &&
        cmp base/metrics.jsonl unseen/metrics.jsonl && diff -r {base,unseen}/checkpoints/step-00000006 &&
        [ "$(grep -o '^{"step":[0-9]*' unseen/eval.jsonl)" = '{"step":6' ] # the last is validated whatever is said
}
check "without validations, the same bits" unseen
largest() { head -n 1 "$1/metrics.jsonl" | grep -o '"layer_output_max":\[[^]]*\]'; }
whole() { # the first step's samples as one micro-batch: the largest elements are those of all
    train 1 whole --train.micro_batches=1 --train.micro_batch_size=8 --train.steps=1 && diff <(largest base) <(largest whole)
}
check "the largest activations, of all micro-batches" whole
squeezed() { # more threads than the cores that the run may have: said, and the same bits
    local core
    core=$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')
    taskset -c "$core" "$caracal" train tiny.yaml --run.dir=squeezed --parallel.threads=2 | tee squeezed.log
    same base squeezed && grep "^threads   more than the rank's 1 core:" squeezed.log && ! train 1 squeezed | grep '^threads  '
}
check "more threads than cores" squeezed
small_gradients() { # one warning, with the group and both numbers, and a note in the report; none at the usual eps
    train 2 eps --optim.eps=1 --train.steps=3 --metrics.digest_every=2 >eps.log && cat eps.log &&
        [ "$(grep '"digests"' eps/metrics.jsonl | grep -o '^{"step":[0-9]*' | xargs)" = '{step:2 {step:3' ] && # the last, too
        [ "$(grep -c 'warning: step 1: optim.eps = 1 exceeds a hundredth of the gradient RMS of the ' eps.log)" = 1 ] &&
        [ "$(grep -c optim.eps eps.log)" = 1 ] && grep -q 'optim.eps = 1 exceeds a hundredth' eps/report.html &&
        ! grep -q 'optim.eps = ' base/report.html
}
check "eps above the gradients" small_gradients
beyond() { # the schedule's end: the run says so at its start, and only where it goes on
    train 1 beyond --optim.schedule_steps=4 | tee beyond.log
    [ "$(grep -cx 'schedule  ends with step 4 of 6; from there on the learning rate is 0.0003' beyond.log)" = 1 ] &&
        [ "$(grep -c '"lr":0.0003,' beyond/metrics.jsonl)" = 2 ] && tail -n 1 beyond/metrics.jsonl | grep '"lr":0.0003,' &&
        ! train 1 within --optim.schedule_steps=6 | grep ^schedule
}
check "more steps than the schedule" beyond
unheld() {
    sed 's/, valid: [a-z.]*//' tiny.yaml >unheld.yaml && "$caracal" train unheld.yaml --run.dir=unheld --train.steps=1 --train.eval_every=1 |
        grep '^held-out  none: train.eval_every does nothing'
}
check "validations of nothing" unheld
taken() { # weights of another run; the same command again goes on, and does not take them once more
    train 2 from --init-from=base/checkpoints --train.steps=2 && train 1 from --init-from=base/checkpoints --train.steps=4 &&
        train 2 from4 --init-from=base/checkpoints --train.steps=4 --checkpoint.every=2 && cmp from/metrics.jsonl from4/metrics.jsonl &&
        ! cmp -s <(head -n 1 from/metrics.jsonl) <(head -n 1 base/metrics.jsonl)
}
check "weights of another run" taken
refuses "two places to begin from" 2 "a run begins from one of them" train 1 bad --init-from=base --resume=base
itself() { # the weights of this very run: nothing is lost
    cp -r base twin && train 1 twin --init-from=twin --train.steps=6 | tee itself.log
    same base twin && grep -q '^done      all of train.steps = 6' itself.log
}
check "a run's own weights" itself
refuses "a save that was cut off" 2 "there is no complete checkpoint here" sh -c \
    'mkdir -p cut/step-00000009.tmp && "$0" train tiny.yaml --run.dir=bad --resume=cut/step-00000009.tmp' "$caracal"
refuses "token files by two processes" 2 "caracal: data is one process: start it without mpirun" \
    "$top/launch/run" -np 2 "$caracal" data build --tokenizer=tokenizer.json --out=bad tiny.yaml
refuses "a plan by two processes" 2 "caracal: plan is one process: start it without mpirun" \
    "$top/launch/run" -np 2 "$caracal" plan tiny.yaml
refuses "a plan for more hosts than ranks" 2 "--hosts=3: there are no more ranks than 2" "$caracal" plan tiny.yaml --ranks=2 --hosts=3
refuses "questions and samples" 2 "--samples counts held-out text, not --choices" \
    "$caracal" evaluate base --choices=bad.jsonl --samples=3
refuses "a tokenizer that is not there" 6 "caracal: data.tokenizer: cannot read nowhere.json" train 1 bad --data.tokenizer=nowhere.json
refuses "an unknown data command" 2 "caracal: data bild: no such command" "$caracal" data bild
refuses "a word among ids" 3 'input: "foo" is not a token id' sh -c 'echo 12 foo | "$0" tokenizer decode --tokenizer=tokenizer.json' "$caracal"
check "-h, as --help" diff <("$caracal" -h) <("$caracal" --help)
refuses "the name of one file of two" 2 "data source code: code.train.bin: leave out .bin" \
    sh -c 'sed s/code.train/code.train.bin/ tiny.yaml >half.yaml && "$0" train half.yaml --run.dir=bad' "$caracal"
evaluated() { # opens the model alone, and says what training said of it; its bits per byte are of the text of 3 samples each
    local total bytes bits
    total=$(sed -n 's/.*"loss":{[^}]*"total":\([0-9.]*\).*/\1/p' base/eval.jsonl | tail -n 1)
    bytes=$(for source in code prose; do
        od -An -v -tu2 -j2 -N$((3 * 256 * 2)) $source.valid.bin | "$caracal" tokenizer decode --tokenizer=tokenizer.json
    done | wc -c)
    bits=$(awk -v loss="$total" -v bytes="$bytes" 'BEGIN { printf "%.4f", loss * 2 * 3 * 256 / bytes / log(2) }')
    "$caracal" evaluate base/checkpoints --samples=3 | tee evaluated.log
    echo "$total of $bytes bytes: $bits"
    grep -q "^all tokens  *$(printf %.4f "$total") .* $bits\$" evaluated.log
}
check "evaluate" evaluated
exam() { # lines of code against the same lines read backwards; MTP's choices; the same words from 2 ranks
    train 1 exam --train.steps=60 --loss.mtp_coef=0.3 --checkpoint.every=0 --train.eval_every=0 || return 1
    awk 'length > 30 && !/["\\\t]/ && n < 49 {
        wrong = ""
        for (i = length($0); i; i--) wrong = wrong substr($0, i, 1)
        if (n++) printf "{\"question\": \"%s\", \"choices\": [\"%s\", \"%s\"], \"answer\": 1}\n", last, wrong, $0
        last = $0
    }' "$top"/optim/*.c >exam.jsonl
    echo '{"question": "int", "choices": ["~", "e"], "answer": 1}' >>exam.jsonl # of one token each
    "$caracal" evaluate exam --choices=exam.jsonl | tee exam.log && grep -q '^49 questions: 100.0% by' exam.log &&
        "$caracal" evaluate exam >exam1.log && "$top/launch/run" -np 2 "$caracal" evaluate exam >exam2.log &&
        cmp exam1.log exam2.log && grep -q 'all tokens .*[1-9][0-9.]*%' exam1.log
}
check "multiple choice, MTP's acceptance" exam
clipped() { # of a question that is too long the end counts
    sed "s/\"question\": \"/&$(printf 'x = y; %.0s' {1..200})/" exam.jsonl >long.jsonl
    "$caracal" evaluate exam --choices=long.jsonl | tee long.log && grep '^49 questions: 100.0% by' long.log
}
check "questions longer than the model sees" clipped
per_byte() { # a model that knows next to nothing: three tokens of four bytes are less than one of one a byte
    printf '~in~' | "$caracal" tokenizer encode --tokenizer=tokenizer.json | tee ids
    echo '{"question": "int", "choices": ["~", "~in~"], "answer": 1}' >bytes.jsonl
    [ "$(wc -w <ids)" = 3 ] && "$caracal" evaluate base --choices=bytes.jsonl | tee bytes.log &&
        grep '^1 questions: 0.0% by likelihood, 100.0% by likelihood per byte' bytes.log
}
check "likelihood per byte" per_byte
accepted() { # once it knows that the letters follow one another, MTP's choices are the model's own
    for _ in {1..2000}; do printf ' a b c d e f g h i j k l'; done >cycle.txt
    "$caracal" data build --tokenizer=tokenizer.json --out=cycle --valid-fraction=0 cycle.txt &&
        sed '/name: prose/d; s/code.train\|code.valid/cycle.train/g' tiny.yaml >cycle.yaml &&
        "$caracal" train cycle.yaml --run.dir=cycle --train.steps=60 --train.seq_len=32 --loss.mtp_coef=0.3 --checkpoint.every=0 \
            --train.eval_every=0 && "$caracal" evaluate cycle --samples=3 | tee cycle.log &&
        grep 'all tokens .* \(9[0-9]\.[0-9]\|100\.0\)%$' cycle.log
}
check "MTP's choices are what the model chooses" accepted
budget() { # the report's headline is of the last tenth of the run, here of the last step
    mkdir short && cp base/config.yaml short &&
        sed 's/"ffn_experts_mean":\[[^]]*\]/"ffn_experts_mean":[9,9]/; $s/\[9,9\]/[2.52,2.53]/' base/metrics.jsonl >short/metrics.jsonl &&
        "$caracal" report short && grep -o '[0-9] of 2 layers within 1%' short/report.html | grep '^1 of'
}
check "layers within the budget" budget
exact() { # the last step's figures in hex are those in decimals
    local key line hex
    line=$(tail -n 1 base/metrics.jsonl)
    for key in loss grad_norm; do
        hex=$(sed "s/.*\"${key}_hex\":\"\([^\"]*\)\".*/\1/" <<<"$line")
        [ "$(printf %.7e "$hex")" = "$(printf %.7e "$(sed "s/.*\"$key\":\([^,]*\),.*/\1/" <<<"$line")")" ] || return
    done
}
check "figures in hex" exact
generates() { # the mark between prompt and answer is for a person, and not in a file
    "$caracal" generate base/checkpoints --prompt='int main(' --tokens=8 | tee generated && ! grep '▸' generated &&
        script -qec "$caracal generate base/checkpoints --prompt='int main(' --tokens=8" /dev/null </dev/null | grep 'int main(▸'
}
check "generate" generates
generates_long() { # says when the model does not see all of it
    "$caracal" generate base/checkpoints --prompt="$(head -c 3000 "$top/optim/optimizer.c")" --tokens=2 2>&1 | tail -n 1 | grep '^a text outgrew train.seq_len' &&
        "$caracal" generate base/checkpoints --prompt=a --tokens=2 2>&1 | tail -n 1 | grep '^2 tokens'
}
check "generate beyond a sequence" generates_long

on_terminal() { # one line, written over and over, that does not spill into a second row, and says the time left first
    script -qec "$caracal train tiny.yaml --run.dir=seen --train.steps=3 --train.log_every=1" /dev/null </dev/null | cat -v >seen.log
    cat seen.log
    [ "$(grep -o '\^\[\[?7lstep [12]/3  ETA [0-9hms]*  loss [^^]*%\^\[\[?7h\^M\^\[\[K' seen.log | wc -l)" = 2 ] &&
        grep -q '\^\[\[Kstep 3/3  ETA 0s  loss [^^]*^M$' seen.log
}
check "the progress line of a terminal" on_terminal
messages() { # run, launcher...: a progress line gives way to a message, which is bare where it does not go to the terminal
    local run=$1 train="${*:2} $caracal train tiny.yaml --train.steps=4 --train.log_every=1 --checkpoint.every=2"
    train 1 "$run" --train.steps=1 && mkdir "$run/checkpoints/step-00000002" && touch "$run/checkpoints/step-00000002/manifest.json" &&
        cp -r "$run" "$run-bare" && script -qec "$train --run.dir=$run" /dev/null </dev/null | cat -v | tee "$run.log"
    script -qec "$train --run.dir=$run-bare 2>$run.bare" /dev/null </dev/null
    grep -q "^\(.*\^\[\[?7h\)\?\^M\^\[\[Kcaracal: .* did not verify" "$run.log" && grep -q 'did not verify' "$run.bare" &&
        ! grep -v '^caracal: ' "$run.bare"
}
check "a message begins a line of its own" messages told
check "also that of a run under mpirun" messages told-2 "$top/launch/run" -np 2
stopped_below() {
    script -qec "echo \$\$ >pid; exec $caracal train tiny.yaml --run.dir=below --train.steps=1000000 --checkpoint.every=0 \
        --train.eval_every=0" /dev/null </dev/null >below.log &
    wait_for test -s below/metrics.jsonl && kill -INT "$(cat pid)" && wait $!
    tail -c 500 below.log | cat -v
    grep -q '^caracal: interrupted' below.log
}
check "so does the last one, after INT" stopped_below
json() { # documents in a .json are text like any other, and that is said once
    cp tokenizer.json documents.json && cp tokenizer.json more.json &&
        "$caracal" data build --tokenizer=tokenizer.json --out=json documents.json "$top/LICENSE" more.json 2>&1 | tee json.log &&
        [ "$(grep -c 'warning: documents.json (and 1 more): read as plain text.*\.jsonl' json.log)" = 1 ] &&
        "$caracal" tokenizer train --vocab-size=300 --out=t.json documents.json 2>&1 | grep 'warning: documents.json: read as' &&
        ! "$caracal" data build --tokenizer=tokenizer.json --out=json "$top/LICENSE" "$top/Makefile" 2>&1 | grep warning
}
check "documents in a .json" json
refuses "ranks that do not divide" 2 "train.micro_batches = 8 is not divisible by the 3 ranks" train 3 bad
refuses "experts that do not divide" 2 "model.n_routed_experts" train 8 bad --model.n_routed_experts=6 --router.lb_groups=2
echo '{"question": "a", "choices": ["b"], "answer": 0}' >bad.jsonl
refuses "a question without a choice" 3 'bad.jsonl:1: must be {"question": text' "$caracal" evaluate base --choices=bad.jsonl
refuses "an unknown key" 2 "seq_length" train 2 bad --train.seq_length=7
refuses "another config on resume" 2 "optim.lr" train 1 base --optim.lr=1e-3 --train.steps=7
# Token files that are others than the run has had, under the same names.
mkdir had && cp code.* prose.* had
rebuild() { "$caracal" data build --tokenizer=tokenizer.json --out=code "$@" "$top"/kernels/ref/*.c "$top"/model/*.c "$top"/optim/*.c; }
swapped() { # two tokens of a file change places, far from its beginning: the index stays
    { head -c 5000 "had/$1" && tail -c +5003 "had/$1" | head -c 2 && tail -c +5001 "had/$1" | head -c 2 && tail -c +5005 "had/$1"; } >"$1" &&
        ! cmp "had/$1" "$1" && [ "$(stat -c %s "$1")" = "$(stat -c %s "had/$1")" ]
}
elsewhere() { # the same tokens at another place, and less held-out text: nothing has changed
    mkdir moved && cp had/* moved && sed 's:train\: \(code\|prose\):train\: moved/\1:; s/, valid: prose.valid//' tiny.yaml >moved.yaml && grep -q 'train: moved/code' moved.yaml &&
        cp -r base moves && "$caracal" train moved.yaml --run.dir=moves --train.steps=7 &&
        tail -n 1 moves/eval.jsonl | grep '^{"step":7,.*"code"' | grep -v prose # a source without held-out text is not there
}
go_on() { # with other text, on purpose: by growth, and then as any run; or with the weights alone
    "$caracal" grow base other --times=1 && "$caracal" train other/config.yaml --train.steps=7 &&
        "$caracal" train other/config.yaml --train.steps=8 && train 2 weights --init-from=base --train.steps=1
}
check "the same text at another place" elsewhere
check "another split" rebuild --valid-fraction=0.2 --seed=1
refuses "another split on resume" 2 "data source code: code.train.bin has other tokens" train 2 base --train.steps=7
check "which growth makes a run of" go_on
cp had/code.train.* .
refuses "other held-out text on resume" 2 "data source code: code.valid.bin has other tokens" train 1 base --train.steps=7
cp had/* .
check "two tokens of the second source" swapped prose.train.bin
refuses "two other tokens on resume" 2 "data source prose: prose.train.bin has other tokens" train 1 base --train.steps=7
refuses "nor does the run of other text go back" 2 "data source code: code.train.bin has other tokens" "$caracal" train other/config.yaml
cp had/* .
check "what the run has had" train 2 base --train.steps=7
"$caracal" tokenizer train --vocab-size=300 --out=small.json "$top"/LICENSE >log 2>&1
{ cat tokenizer.json && echo; } >near.json
refuses "token files of another tokenizer" 2 "code.train.bin was made with another tokenizer than near.json" train 2 bad --data.tokenizer=near.json
refuses "nor are they validated on" 2 "code.valid.bin was made with another tokenizer than near.json" "$caracal" evaluate base --data.tokenizer=near.json
silent() { # as other programs write it, the index does not say which tokenizer: it is taken as it is
    mkdir silent && cp code.* prose.* silent && truncate -s -40 silent/*.idx &&
        sed 's:\(code\|prose\)\.\(train\|valid\):silent/&:g' tiny.yaml >silent.yaml && grep -q silent/prose.valid silent.yaml &&
        "$caracal" train silent.yaml --run.dir=mute --data.tokenizer=near.json && cmp mute/eval.jsonl <(head -n 2 base/eval.jsonl)
}
check "token files of other programs" silent
refuses "a token id past the vocabulary" 3 "code.train" train 1 bad --data.tokenizer=small.json --model.vocab_size=300
refuses "gradients whose squares overflow" 5 "stopped before the update" train 1 bad --loss.hidden_z_coef=9e18 --optim.clip=0
refuses "non-finite loss" 5 "stopped before the update" train 2 bad --optim.lr=1e17 --optim.clip=0
check "its largest activations are no numbers" sh -c 'tail -n 1 bad/metrics.jsonl | grep "\"layer_output_max\":\[null,null\]"'
check "its report says so" grep -q '"state": "failed"' bad/status.json
head -c 100 code.train.idx >cut.train.idx && cp code.train.bin cut.train.bin
sed 's/code.train/cut.train/' tiny.yaml >cut.yaml
refuses "a truncated token file" 3 "cut.train.idx" "$caracal" train cut.yaml --run.dir=bad
mkdir crowded && echo mine >crowded/checkpoints
refuses "no place for checkpoints" 6 "crowded/checkpoints" train 2 crowded --resume=none
refuses "a run directory that is a file" 6 "tiny.yaml: Not a directory; remove" train 1 tiny.yaml --resume=none
refuses "a run directory in a file" 6 "tiny.yaml: Not a directory; remove" train 1 tiny.yaml/run
to_full_disk() { "$caracal" "$@" >/dev/full; }
refuses "standard output on a full disk" 6 "standard output cannot be written: No space" to_full_disk plan tiny.yaml
# a path of the wrong kind: what is given, and what is wanted
mkdir bare
for command in evaluate generate inspect verify export grow; do
    case $command in
    generate) more=--prompt=a ;;
    export | grow) more=nothing ;;
    *) more= ;;
    esac
    for given in "tiny.yaml: is a file" "nowhere: No such file" "bare: there is no checkpoint here"; do
        refuses "$command ${given%%:*}" 2 "caracal: $given" "$caracal" $command "${given%%:*}" $more
    done
done
refuses "resume from a config" 2 "tiny.yaml: is a file; a checkpoint is wanted" train 1 bad --resume=tiny.yaml
refuses "a start from nowhere, by two ranks" 2 "nowhere: No such file or directory; a checkpoint is wanted" \
    train 2 bad --init-from=nowhere
refuses "import of a run" 2 "base: has neither model.safetensors nor" "$caracal" import base nothing
refuses "a report of no run" 2 "bare: is not a run directory: it has neither" "$caracal" report bare
refuses "curves of no run" 2 "bare: is not a run directory: it has neither" "$caracal" curves x=bare
refuses "choices that are a directory" 2 "bare: cannot be read: Is a directory" "$caracal" evaluate base --choices=bare
check "which leaves nothing behind" test ! -e nothing -a ! -e tiny.yaml/run -a -z "$(ls bare)"
# a file system of 1 MiB, where this user may have one
if unshare -rm mount -t tmpfs none /mnt 2>/dev/null; then
    mkdir small
    small() { unshare -rm sh -c 'mount -t tmpfs -o size=1m none small && "$0" train tiny.yaml --run.dir=small' "$caracal"; }
    read_only() {
        unshare -rm sh -c 'mount -t tmpfs none small && mount -o remount,ro small && "$0" train tiny.yaml --run.dir=small' "$caracal"
    }
    refuses "a run directory that is read-only" 6 "nothing can be written in small; make room or rights there" read_only
    refuses "no room for checkpoints" 6 "small/checkpoints: too little room for checkpoints: 2 more of up to" small
fi

every_dataset() { # h5dump, which has nothing of this program but the filter plugin, decodes each
    local file sets=0 all
    all=$("$caracal" inspect "$1" | grep -cE ' (float32|float64|int64) ')
    for file in "$1"/*.h5; do
        HDF5_PLUGIN_PATH=${2-${caracal%/*}} h5dump -y "$file" >values || return
        sets=$((sets + $(grep -c '^ *DATASET ' values)))
    done
    [ "$sets" = "$all" ] && [ "$all" -gt 100 ] || { echo "h5dump shows $sets of $all datasets"; return 1; }
}
check "h5dump reads every dataset" every_dataset base/checkpoints/step-00000006
refuses "which needs the plugin" 1 "unable to print data" every_dataset base/checkpoints/step-00000006 /nonexistent

similar() { # the router's rows, as pairs: the figure that the step after the checkpoint had
    local file
    for file in base/checkpoints/step-00000006/*.h5; do
        HDF5_PLUGIN_PATH=${caracal%/*} h5dump -y -w 1 -m %.9g -d /weights/model.layers.0.mlp.router.classifier.weight "$file" 2>/dev/null
    done | grep -o '[-0-9.e+]*[0-9],\?$' | tr -d , >rows
    sed -n '7s/.*"router_similarity":\[\([^],]*\),.*/\1/p' base/metrics.jsonl >>rows
    awk '{ x[NR - 1] = $1 }
        END {
            for (i = 0; i < 12; i++)
                for (j = 0; j < i; j++) {
                    dot = a = b = 0
                    for (k = 0; k < 48; k++) {
                        dot += x[48 * i + k] * x[48 * j + k]; a += x[48 * i + k] ^ 2; b += x[48 * j + k] ^ 2
                    }
                    sum += dot / sqrt(a * b)
                }
            print NR, sum / 66, x[NR - 1]
            exit !(NR == 12 * 48 + 1 && sum / 66 - x[NR - 1] < 1e-6 && x[NR - 1] - sum / 66 < 1e-6)
        }' rows
}
check "similarity of the router's rows" similar

under_way() { # log: waits until the first step is told
    wait_for grep -q '^step' "$1"
}
interrupted() { # SIGINT: out at once, with a word about what is safe
    "$caracal" train tiny.yaml --run.dir=interrupted --train.steps=100000 --checkpoint.every=0 >interrupted.log 2>&1 &
    local run=$!
    under_way interrupted.log
    kill -INT $run
    wait $run
    code=$?
    cat interrupted.log
    [ $code = 130 ] && grep -q "interrupted; the newest" interrupted.log
}
check "interrupted" interrupted
asked() { # USR1: a checkpoint at the next step boundary, exit code 75; the same command goes on
    "$top/launch/run" -np 2 "$caracal" train tiny.yaml --run.dir=asked --train.steps=100000 --checkpoint.every=0 \
        >asked.log 2>&1 &
    local run=$!
    under_way asked.log
    kill -USR1 $run
    wait $run
    code=$?
    cat asked.log
    [ $code = 75 ] && [ -e asked/checkpoints/step-*/manifest.json ]
}
check "asked to leave" asked

killed() { # one of two ranks dies: the run ends within 10 s with exit code 9
    train 2 killed --train.steps=100000 --checkpoint.every=0 >killed.log 2>&1 &
    local run=$! victim began
    under_way killed.log
    victim=$(for p in /proc/[0-9]*; do
        tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -q "^$caracal train .*--run.dir=killed" && [ "$p/cwd" -ef . ] && echo "${p#/proc/}"
    done | tail -n 1)
    kill -9 "$victim"
    began=$SECONDS
    wait $run
    code=$?
    cat killed.log
    [ $code = 9 ] && [ $((SECONDS - began)) -le 10 ] && grep -q "signal 9" killed.log
}
check "a rank killed mid-step" killed

#!/bin/bash
# Growth with real runs: a trained model of two layers becomes one of four and of six, and goes on training.  What
# is stacked where is worked out here once more, from `inspect`.
set -u
. "$(dirname "$0")/tiny.sh"

# moments, controller history with counts that wait, and an MTP head, so that there is everything to stack
kinds="--loss.mtp_coef=0.3 --router.bias_kp=0.3 --router.bias_kd=0.1 --router.bias_update_interval=3"
stacked() { # ckpt, times: the tensors that growth must give, as digest, type, shape, bytes, name
    "$caracal" inspect "$1" | awk -v times="$2" -v layers=2 '
        /^tensors/ { on = 1; next }
        !on || NF == 0 { next }
        { shape = ""; for (i = 3; i <= NF - 3; i++) shape = shape $i; about = $1 " " $2 " " shape " " $(NF - 2) }
        { n = split($NF, part, ".") }
        part[1] ~ /\/model$/ && part[2] == "layers" {
            for (t = 0; t < times; t++) {
                name = part[1] "." part[2] "." part[3] + t * layers
                for (i = 4; i <= n; i++) name = name "." part[i]
                print about, name
            }
            next
        }
        { print about, $NF }' | sort
}
state() { # ckpt: everything that is not a tensor, but for the number of layers, and the text, which growth leaves open
    "$caracal" inspect "$1" | sed -n '/^state/,/^files/p' | grep -vE '^(files|  config.model.num_layers|  config_digest|  data_digests[^ ]*) '
}
layers() { "$caracal" inspect "$1" | grep -F "config.model.num_layers" | grep -F "\"$2\""; }
grows() { # times, out
    "$caracal" grow small "$2" --times="$1" && "$caracal" verify "$2/checkpoints/step-00000004" &&
        diff <(stacked small/checkpoints/step-00000004 "$1") <(stacked "$2/checkpoints/step-00000004" 1) &&
        diff <(state small/checkpoints/step-00000004) <(state "$2/checkpoints/step-00000004") &&
        layers "$2/checkpoints/step-00000004" $((2 * $1))
}
goes_on() { # ranks, layers, from, run: trains from step 4 to 8
    train "$1" "$4" $kinds --model.num_layers="$2" --train.steps=8 --resume="$3" &&
        [ "$(head -n 1 "$4/metrics.jsonl" | cut -d, -f1)" = '{"step":5' ] && [ "$(wc -l <"$4/metrics.jsonl")" = 4 ]
}
also() { # layers, from, run: on two ranks, with the bits of RUN
    goes_on 2 "$1" "$2" "$3-2" && same "$3" "$3-2"
}

check "a small model trains" train 2 small $kinds --train.steps=4
check "two layers become four" grows 2 four
check "two layers become six" grows 3 six
check "four layers go on" goes_on 1 4 four four-on
check "on two ranks, the same bits" also 4 four four-on
check "six layers go on" goes_on 1 6 six/checkpoints/step-00000004 six-on
check "on two ranks, the same bits" also 6 six six-on
in_place() { # the grown run directory itself goes on, by its own config
    "$caracal" train four/config.yaml --train.steps=8 && cmp four/metrics.jsonl four-on/metrics.jsonl &&
        diff -r four/checkpoints/step-00000008 four-on/checkpoints/step-00000008
}
check "the new run goes on by its own config" in_place
check "evaluate reads it" "$caracal" evaluate six
check "another schedule" "$caracal" grow small faster --optim.schedule_steps=40 --optim.lr=1e-3
same_layers() { # as many layers: the step after has the loss of the run that was left, and another learning rate
    "$caracal" grow small slower --times=1 --optim.lr=1e-5 && "$caracal" train slower/config.yaml --train.steps=6 &&
        train 1 small $kinds --train.steps=6 || return
    step() { grep -m 1 "^{\"step\":$2," "$1/metrics.jsonl" | grep -oE "\"$3\":[^,]*"; }
    [ "$(step slower 5 loss_hex)" = "$(step small 5 loss_hex)" ] && [ "$(step slower 5 lr)" != "$(step small 5 lr)" ] &&
        [ "$(step slower 6 loss_hex)" != "$(step small 6 loss_hex)" ]
}
check "and only that one resumes" train 1 faster $kinds --model.num_layers=4 --optim.schedule_steps=40 --optim.lr=1e-3 \
    --train.steps=5
cp -r small small-4
check "the same layers, another learning rate" same_layers
rm -r small && mv small-4 small

refuses "a resume with the old number of layers" 2 "model.num_layers is 2, was 4" train 1 bad $kinds --resume=four
refuses "a run that is there" 2 "is a run already" "$caracal" grow small six
refuses "another width" 2 "model.hidden_size = 64" "$caracal" grow small bad --model.hidden_size=64
refuses "another number of layers" 2 "model.num_layers" "$caracal" grow small bad --model.num_layers=8
refuses "no MTP head any more" 2 "loss.mtp_coef" "$caracal" grow small bad --loss.mtp_coef=0
refuses "no times" 2 "times" "$caracal" grow small bad --times=0
refuses "nothing to grow" 2 "nowhere" "$caracal" grow nowhere bad
refuses "a damaged checkpoint" 3 "shard-00001.h5" sh -c \
    'cp -r small hurt && truncate -s -1 hurt/checkpoints/step-00000004/shard-00001.h5 && rm -r hurt/checkpoints/step-00000003 &&
     exec "$0" grow hurt bad' "$caracal"
check "nothing is left of what was refused" test ! -e bad

#!/bin/bash
# caracal export and import on a trained model: there and back without a bit changed, and what neither will do.
# shellcheck source=tests/tiny.sh
. "$(dirname "$0")/tiny.sh"

refuses_cleanly() { # as refuses; and nothing new is left
    local before
    before=$(ls)
    refuses "$@"
    [ "$before" = "$(ls)" ] || echo "not ok $1: it left something: $(ls)"
}
# What depends on the model alone: without the step it was saved at, seq_len comes back through config.json.
held_out() { "$caracal" evaluate "$1" --samples=3 | sed 's/after step.*//'; }
there_and_back() { # name, options of export: the import of an export exports to the same files
    local name=$1
    shift
    "$caracal" export run/checkpoints "$name" "$@" && "$caracal" import "$name" "$name.run" &&
        "$caracal" export "$name.run/checkpoints" "$name.again" "$@" && diff -r "$name" "$name.again" &&
        "$caracal" verify "$name.run/checkpoints/step-00000000"
}
names_its_inputs() { # or transformers' tokenizer makes token_type_ids, which the model's generate refuses
    "$caracal" export run/checkpoints named && grep -q '"model_input_names": \["input_ids", "attention_mask"\]' named/tokenizer_config.json
}
same_loss() {
    "$caracal" import there there.mine --config=run/config.yaml &&
        [ "$(held_out run/checkpoints)" = "$(held_out there.mine/checkpoints)" ] && held_out run/checkpoints | grep all
}
goes_on() { # a run that was imported resumes at step 0
    "$caracal" train there.mine/config.yaml --train.steps=1 --train.eval_every=0 &&
        grep -q '"step": *1' there.mine/metrics.jsonl
}
sharded() { # every file but one that holds a single tensor stays below the limit
    there_and_back shards --max-shard-size=40KB && [ -e shards/model.safetensors.index.json ] &&
        [ "$(ls shards/model-*.safetensors | wc -l)" -gt 5 ] && [ ! -e shards/model.safetensors ]
}
padded() { # the identity experts' rows that transformers 5 wants are passed over
    "$caracal" export run/checkpoints padded --layout=transformers-5 && "$caracal" import padded padded.run &&
        "$caracal" export padded.run/checkpoints padded.again && diff -r there padded.again &&
        grep -q 'experts.11.gate_proj' padded/model.safetensors && ! grep -q 'experts.8.gate_proj' there/model.safetensors
}
rounded() { # the router alone stays in float32: it decides by small differences
    tr '}' '\n' <half/model.safetensors | grep -ao '"[a-z][^"]*":{"dtype":"[A-Z0-9]*"' >dtypes
    [ "$(grep -c BF16 dtypes)" -gt 50 ] && [ "$(grep '\.router\.' dtypes | grep -c '"F32"')" = 4 ] && [ "$(grep -c '"F32"' dtypes)" = 4 ]
}
changed() { # file, from, to: a copy of `there` with bytes of a file changed
    rm -rf changed && cp -r there changed && LC_ALL=C sed -i "s/$2/$3/" "changed/$1"
}

# an embedding of more than the million elements that are in memory at a time, and a number of 17 digits
train 1 run --loss.mtp_coef=0.1 --train.steps=2 --train.eval_every=0 --model.vocab_size=22000 \
    --model.routed_scaling_factor=2.0000000000000004 >log 2>&1 || {
    echo "not ok the tests' own model"
    cat log
    exit 1
}

check "float32, there and back" there_and_back there
check "bf16, there and back" there_and_back half --dtype=bf16
check "but for the routers" rounded
check "in many files" sharded
check "rows of identity experts" padded
check "the exported tokenizer says which inputs the model takes" names_its_inputs
check "the imported model has the same held-out loss" same_loss
check "and can be trained" goes_on
elsewhere() { # neither the tokenizer nor held-out text is seen from there
    mkdir -p away && cd away && "$caracal" export ../run there && diff -r ../there there &&
        "$caracal" evaluate ../run --samples=3 | grep all && cd .. && mv run runs &&
        ! (cd away && "$caracal" export ../runs again) && mv runs run
}
check "from another directory" elsewhere
check "the budget is what uniform routing chooses" grep 'expected_ffn_experts: 2.66666' there.run/config.yaml
check "generates without any data" "$caracal" generate there.run/checkpoints --prompt=int --tokens=2
refuses_cleanly "training without data" 2 "data.sources is missing" "$caracal" train there.run/config.yaml
refuses_cleanly "a directory that is not empty" 2 "there: exists already" "$caracal" export run/checkpoints there
refuses_cleanly "another tokenizer" 2 "is not the tokenizer that" "$caracal" export run/checkpoints new \
    --data.tokenizer="$top/tests/golden/tokenizer/tokenizer.json"
refuses_cleanly "a shard size in words" 2 "max-shard-size=large" "$caracal" export run/checkpoints new --max-shard-size=large
mkdir full && refuses_cleanly "a full disk" 6 "cannot be written" bash -c "ulimit -f 60; '$caracal' export run/checkpoints new"

changed model.safetensors 'experts.5.up_proj' 'experts.5.up_prox'
refuses_cleanly "a tensor of another name" 3 "experts.5.up_proj.weight is missing" "$caracal" import changed new
changed model.safetensors '\[64,48\]' '\[48,64\]'
refuses_cleanly "a tensor of another shape" 3 "has the shape [48, 64]" "$caracal" import changed new
rm -rf changed && cp -r there changed && truncate -s -5 changed/model.safetensors
refuses_cleanly "a file that ends early" 3 "its data lies outside the file" "$caracal" import changed new
printf '\0\0\0\0\0\001' | dd of=changed/model.safetensors conv=notrunc status=none
refuses_cleanly "a header of a terabyte" 3 "says that its header has 1099" "$caracal" import changed new
changed tokenizer.json '"!": 34' '"!": 35'
refuses_cleanly "a tokenizer with an id twice" 3 "id 35 stands twice" "$caracal" import changed new

train 1 sequential --model.moe_input=sequential --train.steps=1 --train.eval_every=0 >log 2>&1
refuses_cleanly "a model that nobody else has" 2 "the published format has no such model" \
    "$caracal" export sequential/checkpoints new
train 1 latent --model.latent_norm_eps=2e-6 --train.steps=1 --train.eval_every=0 >log 2>&1
refuses_cleanly "nor one with another epsilon" 2 "model.latent_norm_eps = 2e-06: the published format has no such key" \
    "$caracal" export latent/checkpoints new

#!/bin/bash
# How fast a GPU computes, beside PyTorch where python3 has it, from a carried bundle (launch/bundle.sh):
#
#   tests/gpu_speed.sh BUNDLE OUT [matrix|step|peer...]     all, or these
#
#   matrix   products, grouped products and attention: OUT/bench-cuda.json, and PyTorch on the same lines
#   step     CARACAL_GPU_STEPS (12) steps of configs/proxy-768.yaml in bf16, 4 micro-batches each, and a timeline of two
#            more (OUT/trace.json); text of 512 tokens stands for one of 131,072, which costs the same
#   peer     transformers' LongcatFlash on that shape
#
# OUT/run.log: which algorithms cublasLt took, and what the steps said.
set -u
bundle=$(cd "${1:?the bundle}" && pwd)
mkdir -p "${2:?the folder for results}"
out=$(cd "$2" && pwd)
parts=("${@:3}")
[ ${#parts[@]} != 0 ] || parts=(matrix step peer)
steps=${CARACAL_GPU_STEPS:-12}
config=${CARACAL_GPU_CONFIG:-$bundle/configs/proxy-768.yaml}
. "$bundle/tests/gpu_libraries.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2
caracal=$bundle/bin/caracal

has() { # a module of python3's
    python3 -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('$1'))" 2>/dev/null && return
    echo "skipped ${FUNCNAME[1]}, PyTorch: python3 has no $1 here"
    return 1
}
# PyTorch brings libraries of its own, and is not shown those that were found for us
python() { LD_LIBRARY_PATH=$libraries_before PYTHONUNBUFFERED=1 python3 "$@"; }
matrix() {
    "$bundle/bin/bench_cuda" "$out/bench-cuda.json" bf16 "${CARACAL_GPU_SECONDS:-0.05}" 2>>"$out/run.log" || return
    has torch || return 0
    python "$bundle/tests/bench_cuda_peer.py" "$out/bench-cuda.json" "$out/bench-cuda-peer.json"
}
step() {
    "$caracal" tokenizer train --vocab-size=512 --out=tokenizer.json "$bundle"/tests/text/*/* >log 2>&1 &&
        "$caracal" data build --tokenizer=tokenizer.json --out=text --valid-fraction=0.3 "$bundle"/tests/text/*/* >>log 2>&1 ||
        { cat log; return 1; }
    # the configuration with this text; a run that ends is saved, which takes longer than these steps, so this one is ended
    awk '/^[a-z]/ { keep = $1 != "data:" && $1 != "checkpoint:" } keep' "$config" >step.yaml
    cat >>step.yaml <<'END'
data:
  tokenizer: tokenizer.json
  sources: [{name: text, train: text.train}]
END
    "$caracal" train step.yaml --run.dir=run --device=cuda --dtype=bf16 --train.micro_batches=4 --train.eval_every=0 \
        --train.log_every=1 --train.steps=$((steps + 1000)) --trace=$((steps + 1))-$((steps + 2)) "${options[@]}" \
        >>"$out/run.log" 2>&1 &
    local run=$!
    while kill -0 $run 2>/dev/null && ! grep -q "\"step\": *$((steps + 3))\>" run/timing.jsonl 2>/dev/null; do
        sleep 0.5
        head -n "$steps" run/timing.jsonl >"$out/timing.jsonl" 2>/dev/null # a run that is cut short has measured these
    done
    kill -9 $run 2>/dev/null
    wait $run 2>/dev/null
    grep -v "^cublasLt" "$out/run.log" | tail -n 25
    [ -s "$out/timing.jsonl" ] && cp run/trace-*.json "$out/trace.json" || return 1
    awk -v last="$steps" -F'"tokens_per_second": *' 'NR > last / 2 { split($2, x, /[,}]/); print x[1] }' \
        "$out/timing.jsonl" | sort -g | awk '{ x[NR] = $1 } END { print "median of the second half:", x[int((NR + 1) / 2)], "tokens/s" }'
}
peer() {
    has transformers || return 0
    python "$bundle/tests/longcat_cuda.py" >"$out/peer.json" || return
    tail -n 1 "$out/peer.json"
}
options=()
read -ra options <<<"${CARACAL_GPU_OPTIONS:-}"
code=0
for part in "${parts[@]}"; do
    began=$SECONDS
    "$part" || { echo "not ok $part"; code=1; }
    echo "$part: $((SECONDS - began)) s"
done
exit $code

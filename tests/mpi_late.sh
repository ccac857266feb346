#!/bin/bash
# Ranks that are late wherever something is sent, awaited or read: whoever comes first, the bits are the same.  And ranks
# that die or hang there: the others end, and say who it was.
set -u
. "$(dirname "$0")/tiny.sh"
late=${caracal%/*}/tests/late/caracal
small=(--train.steps=2 --train.micro_batches=4 --train.seq_len=100 --train.eval_every=0 --checkpoint.every=0)
rich=(--loss.mtp_coef=0.3 --parallel.expert_replicas=2)

is() { # base, who, where, microseconds, ranks, options...: the base's bits, however late that rank is there
    local caracal=$late
    rm -rf run
    CARACAL_TEST_LATE="$2 $3 $4" train "$5" run "${small[@]}" "${@:6}" && cmp "$1/metrics.jsonl" run/metrics.jsonl &&
        diff -r "$1/checkpoints" run/checkpoints
}
check "1 rank that is never late" train 1 base "${small[@]}"
check "the same with MTP and replicas" train 1 rich "${small[@]}" "${rich[@]}"
for where in router_forward copy_rows grouped_gemm copy attention_forward attention_backward combine_backward add; do
    check "rank 1 of 2 is late at $where" is base 1 $where 3000 2
done
check "rank 0 of 2 is late at attention" is rich 0 attention_backward 3000 2 "${rich[@]}"
check "rank 0 of 2 is late with the experts' gradients" is rich 0 grouped_gemm_dw 3000 2 "${rich[@]}" --parallel.chunks=3
check "all of 2 anywhere, by MPI" is rich all any 800 2 "${rich[@]}" --parallel.transport=host \
    --parallel.chunks=32 --sdc.interval=1
check "all of 4 anywhere" is base all any 500 4
check "all of 4 anywhere, 2 x 2, checked messages" is rich all any 500 4 "${rich[@]}" --parallel.expert_parallel=2 \
    --sdc.interval=1 --parallel.chunks=3
check "all of 4 anywhere, further rounds" is base all any 500 4 --parallel.expert_capacity=0.01

ends() { # operation, call, signal, exit code, words: rank 1 of 2 gets it there
    local code=0 dir=$1-$3
    CARACAL_TEST_END="1 $1 $2 $3" "$top/launch/run" -np 2 "$late" train tiny.yaml --run.dir="$dir" "${small[@]}" \
        --wait_timeout=1s >"$dir.log" 2>&1 || code=$?
    cat "$dir.log"
    echo "exit code $code, wanted $4"
    [ $code = "$4" ] && grep -qE "$5" "$dir.log"
}
# they mostly wait: side by side
{
    check "rank 1 dies before its counts are sent" ends router_forward 6 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs before its counts are sent" ends router_forward 6 STOP 4 "rank 0 of 2 waited 1 s in expert counts .* from rank 1"
    check "rank 1 dies with rows it was sent" ends grouped_gemm 8 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs with rows it was sent" ends grouped_gemm 8 STOP 4 "rank 0 of 2 waited 1 s in combine .* from rank 1"
} &
{
    check "rank 1 dies before it sends rows" ends copy_rows 1 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs before it sends rows" ends copy_rows 1 STOP 4 "rank 0 of 2 waited 1 s in dispatch .* from rank 1"
    check "rank 1 dies in a fold" ends add 3 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs in a fold" ends add 3 STOP 4 "rank 0 of 2 waited 1 s in .* (to|from) rank 1"
} &
{
    check "rank 1 dies in the update" ends adamw 2 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs in the update" ends adamw 2 STOP 4 "rank 0 of 2 waited 1 s in gather of weights .* from rank 1"
    check "rank 1 dies in its backward" ends attention_backward 3 KILL 9 "rank 1 .*signal 9"
    check "rank 1 hangs in its backward" ends attention_backward 3 STOP 4 "rank 0 of 2 waited 1 s in .* from rank 1"
} &
wait

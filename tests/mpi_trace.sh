#!/bin/bash
# --trace=STEPS: a timeline that parses and nests, of the steps that were asked for, and the same bits with it.
set -u
. "$(dirname "$0")/tiny.sh"
timeline=${caracal%/*}/tests/timeline

check "a run" train 2 plain
traced() { # ranks, first step, last step, words...: what there is in the timeline
    local run=run$1 file=run$1/trace-$2-$3.json word
    train "$1" "$run" "--trace=$2-$3" && same plain "$run" && "$timeline" check "$file" >counts && cat counts || return
    grep -q " $1 ranks" counts || return
    for word in '"optimizer"' '"validation"' '"layer", .*"number": 1}' "${@:4}"; do
        grep -q "\"name\": $word" "$file" || { echo "no $word"; return 1; }
    done
    [ "$(grep -c '"step", "pid": 0' "$file")" = $(($3 - $2 + 1)) ] # none of the steps before and after
}
check "2 ranks traced, the same bits" traced 2 2 6 '"dispatch", "pid": 1' '"wait for dispatch"' \
    '"wait for fold of gradients"' '"combine", "pid": 1, "tid": [1-9]' '"save", "pid": 0, "tid": 1'
check "1 rank traced, the same bits" traced 1 2 3
ended() { # a run that ends with an error before the last of its steps
    "$caracal" train tiny.yaml --run.dir=ended --optim.lr=1e17 --optim.clip=0 --trace=1-90
    [ $? = 5 ] && "$timeline" check ended/trace-1-90.json
}
check "what a failed run has" ended
torn() { # a timeline with a span that leaves what it is inside of is refused
    sed '0,/"attention 1".*"dur": /s/\("attention 1".*"dur": \)[0-9.]*/\199999999/' run2/trace-2-6.json >torn.json
    "$timeline" check torn.json
}
refuses "a span that does not nest" 3 "after what it is inside of" torn
for bad in 0 x 3-2 2-x 1-200; do
    refuses "--trace=$bad" 2 "--trace=$bad: must be a step" "$caracal" train tiny.yaml --trace=$bad
done

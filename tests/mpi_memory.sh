#!/bin/bash
# What `caracal plan` says of a rank's memory is what the rank says that it has reserved; and a run for which there is too
# little says so before its first step.
set -u
. "$(dirname "$0")/tiny.sh"

planned() { # the header's line, from plan's
    awk '
        $1 == "weights" { weights = $2 " " $3 }
        $1 == "moments" { moments = $2 " " $3 }
        $1 == "gradients" { sub(/^ *gradients */, ""); gradients = $0 }
        $1 == "activations" { room = $2 " " $3 " (" $4 " " $5 " " $6 " the expected expert load"; worst = $11 " " $12 }
        /the backend.s own/ { if ($4 > 0) own = ", the backend\047s own " $4 " " $5 }
        $1 == "together" { all = $2 " " $3 }
        $1 == "snapshot" { sub(/,/, "", $3); snapshot = $2 " " $3 }
        END {
            print "memory    a rank: weights " weights ", moments " moments ", gradients " gradients ", activations " \
                room "; worst case of dropless routing " worst ")" own ": together " all "; snapshot for checkpoints " snapshot
        }'
}
agrees() { # ranks, options...
    local ranks=$1
    shift
    "$caracal" plan tiny.yaml --ranks="$ranks" "$@" | planned >plan
    train "$ranks" run --train.steps=1 --resume=none "$@" | grep ^memory >taken
    diff plan taken
}
check "1 rank" agrees 1
check "1 rank, bf16, MTP, recompute" agrees 1 --dtype=bf16 --loss.mtp_coef=0.3 --model.recompute=true
check "2 ranks, four layers" agrees 2 --model.num_layers=4
check "2 ranks, fewer layers than gradients on their way" agrees 2 --model.num_layers=1
check "2 ranks by MPI, replicas" agrees 2 --parallel.transport=host --parallel.expert_replicas=2 --parallel.expert_parallel=1
check "2 ranks without promise 3, bf16, MTP, much room" agrees 2 --parallel.rank_invariant=false --dtype=bf16 \
    --loss.mtp_coef=0.3 --parallel.expert_capacity=4

# Hosts that say to have little memory: a file in the place of theirs.
with() { # kB in all, kB free, command...
    printf 'MemTotal: %d kB\nMemAvailable: %d kB\n' "$1" "$2" >meminfo
    # shellcheck disable=SC2016
    unshare -rm bash -c 'mount --bind meminfo /proc/meminfo && exec "$@"' with "${@:3}"
}
if with 1 1 true 2>/dev/null; then
    one=("$caracal" train tiny.yaml --train.steps=1 --resume=none --run.dir=little)
    two=("$top/launch/run" -np 2 "${one[@]}")
    need=$("${one[@]}" | sed -n 's/^memory.*together \([0-9.]*\) MiB; snapshot for checkpoints \([0-9.]*\) MiB$/\1 \2/p' |
        awk '{ printf "%.1f MiB", $1 + $2 }')
    refuses "more than the host has" 7 "rank 0: the ranks of this host, 1, need $need of memory, and the host has 10.0 MiB: " \
        with 10240 10240 "${one[@]}"
    refuses "2 ranks: more than the host has" 7 "rank 0: the ranks of this host, 2, need " with 61440 61440 "${two[@]}"
    of_two() { # files of a checkpoint: what two ranks need
        with 10240 10240 "${two[@]}" --checkpoint.shards="$1" 2>&1 | sed -n 's/.*ranks of this host, 2, need \([0-9.]*\) MiB.*/\1/p'
    }
    snapshots() { # on as many ranks as a checkpoint has files
        local one_file two_files
        one_file=$(of_two 1) two_files=$(of_two 2)
        echo "one rank $need, two $one_file or $two_files"
        awk -v one="$one_file" -v two="$two_files" -v alone="${need% MiB}" 'BEGIN { exit !(one > alone && two > 1.05 * one) }'
    }
    check "2 ranks, one or both with a snapshot" snapshots
    check "one of them alone would have room" with 61440 61440 "${one[@]}"
    refuses "2 ranks: more than is free" 0 "caracal: warning: rank 0: the ranks of this host, 2, need " \
        with 1024000 61440 "${two[@]}"
    silent() { with 1024000 512000 "${two[@]}" 2>&1 >/dev/null | tee log; ! grep -q warning log; }
    check "enough" silent
fi

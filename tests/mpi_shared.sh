#!/bin/bash
# Messages between ranks of one host through shared memory: the bits of plain MPI whatever else differs, memory that is
# used again only when it has been read, damage and hung ranks named, and MPI where there is no room.
set -u
. "$(dirname "$0")/tiny.sh"
transport=${caracal%/*}/tests/transport

sends() { # ranks, way, words of what it says
    "$top/launch/run" -np "$1" "$transport" "$2" >log && cat log && grep -q "^$1 ranks, $3" log
}
check "messages, 2 ranks" sends 2 shared "through shared memory"
check "messages, 3 ranks" sends 3 shared "through shared memory"
check "messages, 3 ranks by MPI" sends 3 mpi "by MPI (parallel.transport: host)"

says() { # words, ranks, run, options...: trains, and says how
    train "${@:2}" >log 2>&1 || { cat log; return 1; }
    grep "$1" log
}
is() { # base, ranks, run, options...: the base's bits through shared memory
    says "^exchange *through shared memory$" "${@:2}" && same "$1" "$3" && rm -rf "$3"
}
rich=(--loss.mtp_coef=0.3 --parallel.expert_replicas=2 --train.micro_batch_size=2 --train.seq_len=100 --train.steps=4)
check "1 rank" train 1 base "${rich[@]}"
check "2 ranks by MPI" says "^exchange *by MPI (parallel.transport: host)$" 2 host "${rich[@]}" --parallel.transport=host
check "the same bits" same base host
check "2 ranks" is base 2 run "${rich[@]}"
check "1 x 2 replicas, checked messages, three chunks" is base 2 run "${rich[@]}" --parallel.expert_parallel=1 \
    --parallel.chunks=3 --sdc.interval=1
check "2 ranks, without overlap, further rounds" is base 2 run "${rich[@]}" --parallel.overlap=false \
    --parallel.expert_capacity=0.01 --sdc.interval=2
check "4 ranks, one chunk" is base 4 run "${rich[@]}" --parallel.chunks=1
check "2 x 2 ranks, further rounds, checked messages" is base 4 run "${rich[@]}" --parallel.expert_parallel=2 \
    --parallel.expert_capacity=0.01 --parallel.chunks=16 --sdc.interval=1
rich+=(--parallel.rank_invariant=false)
check "without promise 3: by MPI" train 2 relaxed "${rich[@]}" --parallel.transport=host --train.micro_batches=4
check "without promise 3" is relaxed 2 run "${rich[@]}" --train.micro_batches=4

flipped() { # operation, way: a changed bit is found where it was read, and named
    rm -rf flipped
    CARACAL_TEST_FLIP="message step=3 rank=1 layer=1 operation=$1 index=5 bit=22" \
        train 2 flipped --sdc.interval=1 --parallel.transport="$2" >log 2>&1
    code=$?
    cat log
    [ $code = 8 ] && grep -q 'FAULT INJECTED' log && grep -q "layer 1: ${1//_/ } #.*from rank 0, word .*was sent as" log
}
check "a bit of rows on their way out" flipped dispatch auto
check "a bit of rows on their way home" flipped combine auto
check "a bit of gradients" flipped fold_of_gradients auto
check "a bit of gradients, by MPI" flipped fold_of_gradients host

killed() { # a rank dies: the others end, and no memory of theirs stays in the host's
    local code=0 before left
    windows() { find /dev/shm -name '*osc*' | sort; }
    before=$(windows)
    # rank 1 is killed once steps have been done
    # shellcheck disable=SC2016
    "$top/launch/run" -np 2 bash -c '[ "$OMPI_COMM_WORLD_RANK" = 1 ] &&
        (until [ -s killed/metrics.jsonl ]; do sleep 0.1; done; kill -9 $$) & exec "$@"' rank \
        "$caracal" train tiny.yaml --run.dir=killed --train.steps=1000000 --checkpoint.every=0 >log 2>&1 || code=$?
    tail -n 5 log
    left=$(comm -13 <(echo "$before") <(windows)) # others may have left some, and those of runs beside this one go
    echo "exit code $code; left in /dev/shm: $left"
    # shellcheck disable=SC2016,SC2086
    [ $code = 9 ] && wait_for sh -c 'for window; do [ ! -e "$window" ] || exit 1; done' windows $left
}
check "a killed rank" killed

# A file system of its own for shared memory, as in a container with a small one (MPI's own messages take sockets).
small() { # size, words, run
    # shellcheck disable=SC2016
    OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo unshare -rm bash -c \
        'mount -t tmpfs -o size="$1" tmpfs /dev/shm && shift && "$@"' small "$1" \
        "$top/launch/run" -np 2 "$caracal" train tiny.yaml --run.dir="$3" >log 2>&1 || { cat log; return 1; }
    cat log
    grep "$2" log && same tiny "$3"
}
if unshare -rm mount -t tmpfs tmpfs /dev/shm 2>/dev/null; then
    check "1 rank as it is" train 1 tiny
    check "no room" small 500k "^exchange *by MPI (/dev/shm has 0 MiB left, and . MiB are needed)" none
    for room in 1700k 2m; do
        what="rows that travel" && [ $room = 2m ] && what=messages
        check "room for a part: $room" small "$room" "^caracal: no shared memory for $what.*, which go by MPI: /dev/shm has" "$room"
    done
fi

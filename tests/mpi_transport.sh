#!/bin/bash
# Device memory between ranks, by NCCL (of the emulator, where no GPU is) and staged through the host.
set -u
. "$(dirname "$0")/tiny.sh"
transport=${caracal%/*}/tests/transport

sends() { # ranks, way, words of what it says
    if [ "$1" = 1 ]; then "$transport" "$2" >log; else "$top/launch/run" -np "$1" "$transport" "$2" >log; fi &&
        cat log && grep -q "$3" log
}
check "a rank to itself by NCCL" sends 1 nccl "^1 ranks"
check "2 ranks by NCCL" sends 2 nccl "^2 ranks, NCCL 2"
check "3 ranks by NCCL" sends 3 nccl "^3 ranks, NCCL 2"
check "3 ranks through the host" sends 3 host "^3 ranks, staged through the host (parallel.transport: host)"
refuses "NCCL where ranks share a GPU" 2 "parallel.transport: nccl: ranks 0 and 1 share a GPU" \
    env CARACAL_EMULATE_ONE_GPU=1 "$top/launch/run" -np 2 "$transport" nccl
traced() { # way
    "$top/launch/run" -np 2 "$transport" "$1" "$1.json" && "${transport%/*}/timeline" check "$1.json"
}
check "exchanges by NCCL have rows of their own" traced nccl

golden() { # ranks, folder, options...: a golden case on the cuda backend, within its bounds
    local folder=$2 replay=${transport%/*}/replay_cuda
    if [ "$1" = 1 ]; then "$replay" "$top/tests/golden/mtp_pid" "$folder" --device=cuda "${@:3}"
    else "$top/launch/run" -np "$1" "$replay" "$top/tests/golden/mtp_pid" "$folder" --device=cuda "${@:3}"; fi &&
        "${transport%/*}/golden" "$top/tests/golden/mtp_pid" "$folder"
}
check "training on the cuda backend, 1 rank" golden 1 alone
check "2 ranks by NCCL" golden 2 nccl --transport=nccl
check "2 ranks through the host" golden 2 host --transport=host
check "the same bits" eval "diff -r alone nccl && diff -r alone host"
check "a layer's launches, tokens in 2 pieces" "$top/launch/run" -np 2 "${transport%/*}/test_cuda_step"

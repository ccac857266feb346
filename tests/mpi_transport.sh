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

#!/bin/bash
# The stall and the speed of saves on this machine (`make bench-ckpt`; docs/checkpoints.md has results): on one rank with
# all cores, and with a rank for each core, or two.
#
#   tests/bench_ckpt.sh [DIR=runs] [MiB of state a rank=1024] [turns=5]     DIR: the disk to measure
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
bench=$top/${CARACAL_BUILD:-build}/tests/bench_ckpt
mkdir -p "${1:-runs}"
directory=$(mktemp -d "${1:-runs}/bench-XXXXXX")
trap 'rm -rf "$directory"' EXIT
cores=$(nproc)
echo "$cores cores, $(lscpu | sed -n 's/^Model name: *//p' | head -n 1), $(df -T "$directory" | awk 'END { print $2 }')"
"$bench" "$directory" "${2:-1024}" "$cores" "${3:-5}"
ranks=$((cores > 8 ? 8 : cores > 1 ? cores : 2))
"$top/launch/run" -np "$ranks" "$bench" "$directory" "${2:-1024}" "$((cores / ranks > 0 ? cores / ranks : 1))" "${3:-5}"

#!/bin/bash
# Checkpoints of several ranks: the same files from every number of ranks, loaded by every other; failures that one
# rank sees end the save on all; and the files are ordinary HDF5 for h5dump.
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${CARACAL_BUILD:-build}
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
failed=0

ok() { # name, then a command that must succeed
    local name=$1
    shift
    if "$@" >"$directory/log" 2>&1; then echo "ok $name"; else
        echo "not ok $name (exit code $?)"
        cat "$directory/log"
        failed=1
    fi
}

ranks() { # number of ranks, arguments of ckpt_ranks; one rank runs without mpirun
    local n=$1
    shift
    if [ "$n" = 1 ]; then "$build/tests/ckpt_ranks" "$@"; else launch/run -np "$n" "$build/tests/ckpt_ranks" "$@"; fi
}

exits() { # wanted exit code, command
    local code
    "${@:2}"
    code=$?
    [ "$code" = "$1" ] || { echo "exit code $code, wanted $1"; return 1; }
}

says() { # text, command: its output has the text
    "${@:2}" >"$directory/said" 2>&1
    grep -qF -- "$1" "$directory/said" || { cat "$directory/said"; return 1; }
}

flip() { # file: one bit in its middle
    local at byte
    at=$(($(stat -c %s "$1") / 2))
    byte=$(od -An -tu1 -j "$at" -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}

one=$directory/one
step=$one/step-00000005
ok "one rank saves" ranks 1 save "$one" 5 3
for n in 2 3 4; do
    ok "$n ranks save" ranks "$n" save "$directory/many" 5 3
    ok "the same files from $n ranks" diff -r "$one" "$directory/many"
    ok "$n ranks load what one saved" says "step 5" ranks "$n" load "$one"
done
ok "one rank loads what four saved" says "step 5" ranks 1 load "$directory/many"
ok "more files than ranks" ranks 2 save "$directory/seven" 5 7
ok "the same from one rank" ranks 1 save "$directory/seven-of-one" 5 7
ok "files are equal" diff -r "$directory/seven" "$directory/seven-of-one"

ok "one rank's disk is full: all fail" exits 6 ranks 3 full "$one" 6 3
ok "and say why" says "step-00000006.tmp/shard-00002.h5: cannot be written: File too large" ranks 3 full "$one" 6 3
ok "nothing is left of it" [ "$(ls "$one")" = step-00000005 ]
ok "the older checkpoint is whole" says "step 5" ranks 2 load "$one"

# killed anywhere: the newest that verifies is this step or the one before, and the next save clears up
for delay in 0.02 0.05 0.1 0.15 0.2 0.3 0.4; do
    timeout -s KILL "$delay" "$build/tests/ckpt_ranks" save "$one" 6 3 >/dev/null 2>&1
    ok "killed after $delay s" ranks 1 load "$one"
done
ok "saving again" ranks 2 save "$one" 6 3
ok "clears up" [ "$(ls "$one" | tr '\n' ' ')" = "step-00000005 step-00000006 " ]
ok "is the newest" says "step 6" ranks 1 load "$one"

flip "$one/step-00000006/shard-00001.h5"
ok "damage is named" says "step-00000006/shard-00001.h5: is damaged" ranks 2 load "$one"
ok "and the one before is used" says "step 5" ranks 3 load "$one"
ok "verify finds it" exits 3 "$build/caracal" verify "$one/step-00000006"
ok "verify names the chunk" says "shard-00001.h5: is damaged: its digest is not the manifest's: dataset /" "$build/caracal" verify "$one/step-00000006"
ok "verify passes the other" exits 0 "$build/caracal" verify "$step"
ok "inspect lists it" says "adam_m/model.layers.20.weight" "$build/caracal" inspect "$step"
rm -r "$step"
ok "no intact checkpoint is an error" exits 3 ranks 2 load "$one"

# h5dump knows nothing of this program but the filter plugin
name=weights/model.layers.6.weight
export HDF5_PLUGIN_PATH=$PWD/$build
case "$build" in /*) HDF5_PLUGIN_PATH=$build ;; esac
"$build/tests/ckpt_ranks" print "$name" >"$directory/wanted"
for file in "$directory"/many/step-00000005/*.h5; do
    h5dump -y -w 1 -o "$directory/values" -d "/$name" "$file" >/dev/null 2>&1 && break
done
ok "a tensor to compare with" [ "$(wc -l <"$directory/wanted")" = 679 ]
ok "h5dump reads the same" diff "$directory/wanted" <(tr -d ' ,' <"$directory/values" | grep .)
exit $failed

#!/bin/bash
# Damage to a checkpoint is seen before anything is used, and named; the run goes on from the one before, says so, and
# ends as if nothing had happened.
#
#   tests/mpi_damage.sh [FLIPS] [PAGES] [SEED]     `make crash-storm`: 10,000 bits, and every page of 4 KiB
#
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
flips=${1:-150}
pages=${2:-16}
seed=${3:-1}
storm_steps=5
. "$(dirname "$0")/storm.sh"
newest=step-00000004

cp -r base run
rm -r run/checkpoints/step-00000005
"$bin/damage" run/checkpoints 3 4 "$flips" "$pages" "$seed" >damage.log 2>&1
check "every damage is seen and named: $(tail -n 1 damage.log) ($(tail -n 2 damage.log | head -n 1))" grep " 0 not seen, 0 answers wrong" damage.log ||
    cat damage.log
check "the tool leaves everything whole" intact run

# What a run does about it: ranks, name, words that must be said, then the command that does the damage.
goes_on() {
    local ranks=$1 name=$2 words=$3
    shift 3
    local damage=("$@")
    rm -rf hurt
    cp -r run hurt
    check "$name: damage is done" eval 'cd hurt/checkpoints && "${damage[@]}"'
    train "$ranks" hurt $small >log 2>&1
    check "$name: $ranks ranks end well" finished hurt 1
    check "$name: says what is skipped" grep -qE "checkpoint skipped: .*$newest.*$words" log
    check "$name: says what is used" grep -q "step-00000003 is used instead" log
    check "$name: what did not verify is kept" test -d hurt/checkpoints/$newest.damaged
}
flip_middle() { # file: one bit
    local at byte
    at=$(($(stat -c %s "$1") / 2))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
goes_on 1 "a bit of a shard" shard-00001.h5 flip_middle $newest/shard-00001.h5
goes_on 2 "a bit of the manifest" manifest.json flip_middle $newest/manifest.json
goes_on 1 "no manifest" manifest.json rm $newest/manifest.json
goes_on 4 "a shard cut short" shard-00000.h5 truncate -s 8192 $newest/shard-00000.h5
goes_on 2 "a shard lost" shard-00000.h5 rm $newest/shard-00000.h5
goes_on 1 "another step's shard" shard-00001.h5 cp step-00000003/shard-00001.h5 $newest/

rm -rf hurt
cp -r run hurt
for step in hurt/checkpoints/step-*; do flip_middle "$step/shard-00000.h5"; done
refuses "nothing verifies: corrupt, not a fresh start" 3 "no checkpoint verifies" train 2 hurt $small

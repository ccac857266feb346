#!/bin/bash
# The promises of docs/determinism.md on configs/nano.yaml, 28 layers (`make promises`): every kind of training of
# promises_cases.sh for 30 steps on 1, 2, 4 and 8 ranks with 1 and 2 threads each, everything twice, and whatever else may
# differ.  Compared, bit for bit: metrics.jsonl with digests of every parameter and both moments at every step, and the
# files of the last checkpoint.  Micro-batches are 32 tokens long instead of 256 (those of `everything` 300), so that 165
# runs take about 35 minutes on two quiet cores; they need build/demo (make demo).
#
#   tests/promises.sh                                       everything; writes docs/promises.md
#   CELLS="1x1 2x2" VARIANTS="base mtp" tests/promises.sh   a part, told on the output alone
#   FREEDOMS="overlap" ...                                  only what has this in its name; FREEDOMS=none: nothing
#
# Finished runs stay in build/promises, by the program and the config they were made with: the same command goes on.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/promises_cases.sh
caracal=${CARACAL_BUILD:-build}/caracal
export OMP_WAIT_POLICY=passive # more threads than cores
[ -e build/demo/tokenizer.json ] || {
    echo "there is no text to train on: make demo" >&2
    exit 2
}
complete=yes
[ -n "${CELLS-}${VARIANTS-}${FREEDOMS-}" ] && complete=
read -r -a cells <<<"${CELLS:-${cells[*]}}"
read -r -a chosen <<<"${VARIANTS:-${variants[*]}}"

short="--train.steps=30 --train.seq_len=32 --train.eval_every=0 --metrics.digest_every=1 --checkpoint.every=0"
results=build/promises/$(cat "$caracal" configs/nano.yaml build/demo/tokenizer.json tests/promises_cases.sh \
    tests/promises.sh | sha256sum | cut -c1-16)
mkdir -p "$results"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# Runs a cell unless it has been run, and keeps its metrics and the digests of metrics and checkpoint files.
run() { # variant, name, ranks, environment or -, options...
    local variant=$1 name=$2 ranks=$3 environment=$4 to=$results/$1.$2 start=$SECONDS
    shift 4
    [ -e "$to.sums" ] && return
    local command=("$caracal" train configs/nano.yaml --run.dir="$work/$variant.$name")
    # shellcheck disable=SC2206,SC2207
    command+=($short $(options_of "$variant") "$@")
    [ "$ranks" = 1 ] || command=(launch/run -np "$ranks" "${command[@]}")
    # shellcheck disable=SC2086
    if ! ([ "$environment" = - ] || export $environment && "${command[@]}") >"$to.log" 2>&1; then
        echo "$variant, $name: exit code $?; $to.log ends" >&2
        tail -n 5 "$to.log" >&2
    elif [ "$(grep -c '"digests"' "$work/$variant.$name/metrics.jsonl")" != 30 ]; then
        echo "$variant, $name: metrics.jsonl has not 30 lines with digests" >&2
    else
        cp "$work/$variant.$name/metrics.jsonl" "$to.metrics.jsonl"
        (cd "$work/$variant.$name" && sha256sum metrics.jsonl checkpoints/step-00000030/*) >"$to.sums.part" &&
            mv "$to.sums.part" "$to.sums"
        echo "$variant, $name: $((SECONDS - start)) s" >&2
    fi
    rm -rf "$work/$variant.$name"
}

# "=" when all runs NAME... of a variant have the bits of BASE (variant.name), else what does not.
verdict() { # base, variant, names...
    local base=$1 variant=$2 name
    shift 2
    for name; do
        if ! [ -e "$results/$variant.$name.sums" ] || ! [ -e "$results/$base.sums" ]; then
            echo "did not finish" && return 1
        elif ! cmp -s "$results/$base.sums" "$results/$variant.$name.sums"; then
            echo "**differs**" && return 1
        fi
    done
    echo "="
}

table() {
    local variant cell base text name ranks environment options digest
    echo "| | ${cells[*]/%/ |} digest of the weights after step 30 |" | sed 's/ | / | /g'
    echo "| --- |${cells[*]/#*/ --- |} --- |"
    for variant in "${chosen[@]}"; do
        base=$variant.1x1.a
        [ "$variant" = recompute ] && base=base.1x1.a
        text="| $(what_is "$variant") |"
        for cell in "${cells[@]}"; do
            if [ "$cell" = 1x1 ]; then # two at a time on two cores
                run "$variant" "$cell.a" 1 - --parallel.threads=1 &
                run "$variant" "$cell.b" 1 - --parallel.threads=1
                wait "$!"
            else
                run "$variant" "$cell.a" "${cell%x*}" - --parallel.threads="${cell#*x}"
                run "$variant" "$cell.b" "${cell%x*}" - --parallel.threads="${cell#*x}"
            fi
            run "${base%%.*}" 1x1.a 1 - # unless it is there
            text+=" $(verdict "$base" "$variant" "$cell.a" "$cell.b") |" || failed=1
        done
        digest=$(tail -n 1 "$results/$base.metrics.jsonl" 2>/dev/null | grep -o '"weights":"[0-9a-f]*"' | cut -d'"' -f4)
        echo "$text \`$digest\` |"
    done
    [ "${FREEDOMS-}" = none ] && return $failed
    echo
    echo "| \"all of these together\" with | ranks | |"
    echo "| --- | --- | --- |"
    run everything 1x1.a 1 -
    while IFS='|' read -r name ranks environment options; do
        [[ $name == *"${FREEDOMS-}"* ]] || continue
        # shellcheck disable=SC2086
        run everything "${name//[^A-Za-z0-9]/_}" "$ranks" "$environment" $options
        text=$(verdict everything.1x1.a everything "${name//[^A-Za-z0-9]/_}") || failed=1
        echo "| $name | $ranks | $text |"
    done < <(freedoms)
    return $failed
}

page() {
    echo "# The promises, tried"
    echo
    echo "Written by \`make promises\` on $(date -u +%Y-%m-%d), on a machine with $(nproc) cores" \
        "$([ -n "$avx512" ] && echo "and AVX-512" || echo "without AVX-512"), Open MPI" \
        "$(mpirun --version | grep -o '[0-9.]*$' | head -n 1). Each cell is two runs of \`configs/nano.yaml\` (28 layers) with" \
        "sequences of 32 tokens, 30 steps, on that many ranks x threads of each (on more than there are cores, they take" \
        "turns). \`=\`: \`metrics.jsonl\`, with digests of every parameter and both moments at every step, and every file" \
        "of the last checkpoint have the bytes of the first run of the line."
    echo
    cat "$work/table"
    echo
    echo "A two-layer model goes through the same in \`make test\` (\`tests/mpi_promises.sh\`). What promise 3 costs:" \
        "[determinism.md](determinism.md)."
}

table >"$work/table" || failed=1
cat "$work/table"
[ "$failed" = 0 ] || echo "not all are the same: build/caracal diff names the first difference of two runs' metrics" >&2
if [ -n "$complete" ]; then
    page >docs/promises.md
    echo "docs/promises.md written" >&2
fi
exit $failed

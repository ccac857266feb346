#!/bin/bash
# Everything that a GPU can tell, in order of worth, from a carried bundle (launch/bundle.sh):
#
#   tests/gpu_session.sh BUNDLE OUT [SECONDS [PART...]]
#
# PARTs are those of `order`, all of them where none is named.  Each has a time of its own, in which what hangs is cut
# short, and none begins that would not end within SECONDS (570): the last line names what is left, for the next call.
# After a failure in kernels, golden or train no rates are measured, for they would be worth nothing; what is tried
# otherwise may say where the fault is.
# OUT gets at most eight files: gpu.json (what passed, and how long it took), gpu.log, and what gpu_speed.sh leaves;
# tests/gpu_page.py makes a page of them.
set -u
bundle=$(cd "${1:?the bundle}" && pwd)
mkdir -p "${2:?the folder for results}"
out=$(cd "$2" && pwd)
end=$((SECONDS + ${3:-570}))
order=(kernels golden train matrix step peer others sanitizer)
declare -A limit=([kernels]=150 [golden]=60 [train]=180 [matrix]=200 [step]=150 [peer]=200 [others]=100 [sanitizer]=500)
parts=("${@:4}")
[ ${#parts[@]} != 0 ] || parts=("${order[@]}")
[ ! -e "$bundle/EMULATED" ] || for part in "${order[@]}"; do limit[$part]=$((4 * limit[$part])); done # by a processor
left=()
failed=

run() { # part
    case $1 in
    matrix | step | peer) "$bundle/tests/gpu_speed.sh" "$bundle" "$out" "$1" ;;
    train) "$bundle/tests/gpu.sh" "$bundle" train: ;;
    others) "$bundle/tests/gpu.sh" "$bundle" resume: refused NCCL staged: ;;
    *) "$bundle/tests/gpu.sh" "$bundle" "$1" ;;
    esac
}
# the log as JSON: names hold no quotes
report() {
    local machine
    machine=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
    awk -v machine="${machine:-none}" -v date="$(date -u +%FT%TZ)" '
        function line(name, result, seconds) {
            printf "%s\n  {\"name\": \"%s\", \"result\": \"%s\", \"seconds\": %d}", (n++ ? "," : ""), name, result, seconds
        }
        BEGIN { printf "{\"machine\": \"%s\", \"date\": \"%s\", \"checks\": [", machine, date }
        /^ok .*, [0-9]+ s$/ { s = $(NF - 1); sub(/^ok /, ""); sub(/, [0-9]+ s$/, ""); line($0, "ok", s) }
        /^not ok / { sub(/^not ok /, ""); line($0, "not ok", 0) }
        /^skipped / { sub(/^skipped /, ""); gsub(/["\\]/, ""); line($0, "skipped", 0) }
        /^part / { part[++p] = $2; took[p] = $3; how[p] = NF > 5 ? $5 " " $6 : $5 }
        END {
            printf "],\n \"parts\": ["
            for (i = 1; i <= p; i++)
                printf "%s\n  {\"name\": \"%s\", \"seconds\": %d, \"result\": \"%s\"}", (i > 1 ? "," : ""), part[i], took[i], how[i]
            printf "]}\n"
        }' "$out/gpu.log" >"$out/gpu.json"
}

for part in "${parts[@]}"; do
    [ -n "${limit[$part]:-}" ] || { echo "no part is called $part: ${order[*]}" >&2; exit 2; }
    rates=
    case $part in matrix | step | peer) rates=yes ;; esac
    if [ -n "$failed" ] && [ -n "$rates" ] || [ $((SECONDS + limit[$part])) -gt "$end" ]; then
        left+=("$part")
        continue
    fi
    began=$SECONDS
    export -f run
    export bundle out
    # one that hangs inside gpu.sh leaves time for the others of its part; the part's own end takes all its processes,
    # which no gentler signal does: caracal saves on TERM
    CARACAL_GPU_LIMIT=$((limit[$part] / 3)) timeout --signal=KILL "${limit[$part]}" bash -c "run $part" 2>&1 | tee -a "$out/gpu.log"
    code=${PIPESTATUS[0]}
    result=ok
    [ "$code" = 0 ] || result="not ok"
    case $code in 124 | 137) result="cut short" ;; esac
    echo "part $part $((SECONDS - began)) s $result" | tee -a "$out/gpu.log"
    case "$result $part" in "ok "*) ;; *\ kernels | *\ golden | *\ train) failed=$part ;; esac
    [ "$result" = ok ] || dmesg 2>/dev/null | grep "NVRM: Xid" | tail -n 5 | tee -a "$out/gpu.log" # the driver's word
    report
done
[ ${#left[@]} = 0 ] || echo "left: ${left[*]}"
[ -z "$failed" ]

#!/bin/bash
# Two hosts: mpirun starts a daemon in each, which sees another host name, /dev/shm and clock than the other (namespaces
# of one machine; a loopback for a network).  Groups of ranks that are on one host share memory, the others speak MPI, in
# one run, and the bits are those of a rank alone.
set -u
. "$(dirname "$0")/tiny.sh"

# Stands for ssh: a command on a host, as $out/HOST.sh makes it.
cat >agent <<'END'
#!/bin/bash
cd "$(dirname "$0")" || exit
exec unshare -rum --time --monotonic "$(($(printf %d "'${1: -1}") * 1000))" --fork --kill-child \
    bash -c 'hostname "$0" && mount -t tmpfs tmpfs /dev/shm && . "./$0.sh" && exec bash -c "$*"' "$@"
END
chmod +x agent
touch nodea.sh nodeb.sh
if ! ./agent nodea true 2>/dev/null; then
    echo "ok two hosts: not tried, this machine gives no namespaces"
    exit
fi
export OMPI_MCA_plm_rsh_agent=$out/agent OMPI_MCA_orte_tmpdir_base=$out OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=lo

by="--bind-to none" # there are not enough cores here for so many ranks
place() { # hosts as mpirun reads them, run, options...: the command
    local ranks=0 host
    for host in ${1//,/ }; do ranks=$((ranks + ${host#*:})); done
    # shellcheck disable=SC2206
    command=("$top/launch/run" -np "$ranks" --host "$1" $by "$caracal" train tiny.yaml --run.dir="$2" "${@:3}")
}
hosts() {
    place "$@"
    "${command[@]}" >log 2>&1
    local code=$?
    cat log
    return $code
}
is() { # words of what it says, hosts, run, options...: the bits of a rank alone
    local words=$1
    shift
    hosts "$@" && grep -q "$words" log && same base "$2" && rm -rf "$2"
}
rich=(--loss.mtp_coef=0.3 --parallel.expert_replicas=2 --train.micro_batch_size=2 --train.seq_len=100 --train.steps=3)
mixed="^exchange *through shared memory inside a host, by MPI between$"
check "1 rank" train 1 base "${rich[@]}"
check "2 + 2 ranks, each host with all experts" is "$mixed" nodea:2,nodeb:2 run "${rich[@]}"
by="--bind-to none --map-by node" check "2 + 2 ranks in turn: experts across hosts, replicas inside, checked messages" \
    is "$mixed" nodea:2,nodeb:2 run "${rich[@]}" --sdc.interval=1 --parallel.chunks=3 --parallel.expert_capacity=0.01
check "3 + 1 ranks: one group of experts on one host, one across" is "$mixed" nodea:3,nodeb:1 run "${rich[@]}" \
    --parallel.expert_parallel=2
cores=$("$caracal" train tiny.yaml --run.dir=alone --train.steps=1 --parallel.threads=auto | sed -n 's/^ranks.*), \(.*\) each.*/\1/p')
by="" check "1 + 1 ranks, with all cores of a host each" is "2 groups), ${cores:-none} each" nodea:1,nodeb:1 run "${rich[@]}" \
    --parallel.threads=auto

flipped() { # operation: a changed bit between hosts is found, and host and rank are named
    CARACAL_TEST_FLIP="message step=3 rank=2 layer=1 operation=$1 index=5 bit=22" \
        hosts nodea:2,nodeb:2 flipped --sdc.interval=1 --parallel.expert_parallel=4
    [ $? = 8 ] && grep -q "rank 2 on nodeb: layer 1: ${1//_/ } #.*from rank 0, word .*was sent as" log
}
check "a bit of rows on their way to another host" flipped dispatch

stopped() { # a signal reaches the ranks of both hosts
    place nodea:1,nodeb:1 stopped --train.steps=100000 --checkpoint.every=0
    "${command[@]}" >log 2>&1 &
    local run=$! code
    wait_for test -s stopped/metrics.jsonl
    kill -TERM $run
    wait $run
    code=$?
    cat log
    [ $code = 75 ] && "$caracal" verify stopped
}
check "TERM: a checkpoint, and exit code 75" stopped

# What is not the same on both hosts.  A host's script is run where it begins to be one, before anything is started.
here() { echo "$1" >nodeb.sh; }
mkdir elsewhere
sed 's/lr: 3e-3/lr: 4e-3/' tiny.yaml >elsewhere.yaml
{ cat tokenizer.json && echo; } >elsewhere.json
tail -c +3 code.train.bin >elsewhere.bin && head -c 2 code.train.bin >>elsewhere.bin
both=(hosts nodea:1,nodeb:1 apart)
for pair in "tiny.yaml another config" "tokenizer.json another tokenizer" "code.train.bin other token files"; do
    file=${pair%% *}
    here "mount --bind elsewhere.${file##*.} $file"
    refuses "$file differs" 2 "rank 1 on nodeb reads ${pair#* } than rank 0" "${both[@]}"
done
here "mkdir -p apart && mount --bind elsewhere apart"
refuses "a run directory that only rank 0's host has" 2 "apart: rank 1 on nodeb does not see what rank 0 writes there" "${both[@]}"
here "mount --bind elsewhere base"
refuses "a run to resume that only rank 0's host has" 2 "base: rank 1 on nodeb does not see what rank 0 writes there" \
    hosts nodea:1,nodeb:1 base "${rich[@]}"
here "mount -o remount,size=500k /dev/shm"
OMPI_MCA_btl=self,tcp check "no room for shared memory on one of them" \
    is "no shared memory for messages, which go by MPI: /dev/shm has 0 MiB" nodea:2,nodeb:2 run "${rich[@]}"

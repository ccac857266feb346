# What tests/promises.sh (nano) and tests/mpi_promises.sh (two layers) have in common (sourced): the kinds of
# training that keep the promises of docs/determinism.md, and what may differ without a bit changing.
# shellcheck shell=bash disable=SC2034

variants=(base accumulation mtp sequential documents recompute pid replicas everything)
cells=(1x1 1x2 2x1 2x2 4x1 4x2 8x1 8x2) # ranks x threads of each

pid="--router.bias_kp=0.3 --router.bias_ki=0.7 --router.bias_kd=0.1"
# A micro-batch of `everything` has more than 256 tokens, so that weight gradients are sums of several k-blocks.
options_of() { # variant
    case $1 in
    base) ;;
    accumulation) echo "--train.micro_batches=16" ;; # several turns on 8 ranks, too
    mtp) echo "--loss.mtp_coef=0.3" ;;
    sequential) echo "--model.moe_input=sequential" ;;
    documents) echo "--model.document_mask=true" ;;
    recompute) echo "--model.recompute=true" ;;
    pid) echo "$pid --router.bias_update_interval=3 --router.bias_decay_steps=25" ;;
    replicas) echo "--parallel.expert_replicas=2" ;;
    everything)
        echo "--loss.mtp_coef=0.3 --model.moe_input=sequential --model.document_mask=true --model.recompute=true" \
            "$pid --router.bias_update_interval=2 --parallel.expert_replicas=2" \
            "--train.micro_batch_size=3 --train.seq_len=100"
        ;;
    esac
}
what_is() { # variant, in words
    case $1 in
    base) echo "as it is, 8 micro-batches" ;;
    accumulation) echo "16 micro-batches" ;;
    mtp) echo "with an MTP head" ;;
    sequential) echo "sequential layers" ;;
    documents) echo "document masks" ;;
    recompute) echo "recomputation (the bits of the first line)" ;;
    pid) echo "all PID gains non-zero, moves every 3 steps, decaying" ;;
    replicas) echo "two expert replicas (1, 2 x 1, 2 x 2, 2 x 4)" ;;
    everything) echo "all of these together" ;;
    esac
}

# Each of these may not change a bit of `everything`: name, ranks, environment (or -), options.
avx512=
grep -q 'avx512bw.*avx512vl\|avx512vl.*avx512bw' /proc/cpuinfo && avx512=yes
freedoms() {
    local lo=OMPI_MCA_btl_tcp_if_include=lo
    echo "by MPI, 4 ranks|4|-|--parallel.transport=host"
    echo "by MPI's shared memory (btl self,vader)|2|OMPI_MCA_btl=self,vader|--parallel.transport=host"
    echo "by MPI's shared memory, eager to 64 KiB|4|OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_eager_limit=65536 OMPI_MCA_btl_vader_max_send_size=131072|--parallel.transport=host"
    echo "by MPI's shared memory, nothing eager|4|OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_eager_limit=256|--parallel.transport=host"
    echo "by MPI, sockets (btl self,tcp)|2|OMPI_MCA_btl=self,tcp $lo|--parallel.transport=host"
    echo "by MPI, sockets, nothing eager|4|OMPI_MCA_btl=self,tcp $lo OMPI_MCA_btl_tcp_eager_limit=256|--parallel.transport=host"
    echo "one chunk|2|-|--parallel.chunks=1"
    echo "five chunks|4|-|--parallel.chunks=5"
    echo "overlap off|2|-|--parallel.overlap=false"
    echo "overlap off, sockets, three chunks|4|OMPI_MCA_btl=self,tcp $lo|--parallel.overlap=false --parallel.chunks=3 --parallel.transport=host"
    echo "rows past the capacity|1|-|--parallel.expert_capacity=0.01"
    echo "rows past the capacity, 2 ranks|2|-|--parallel.expert_capacity=0.01"
    echo "without recomputation|2|-|--model.recompute=false"
    echo "replicas as 1 x 2|2|-|--parallel.expert_parallel=2"
    echo "AVX2|2|-|--isa=avx2"
    [ -n "$avx512" ] && echo "AVX-512|1|-|--isa=avx512"
    return 0
}

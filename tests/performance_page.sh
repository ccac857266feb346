#!/bin/bash
# docs/performance.md: its tables from $B/bench.json and $B/bench-avx2.json (`make bench`, and that with ISA=avx2) and
# docs/results/scaling-*.jsonl (`make scaling`).
# The sentences around them were written for the figures of the repository's page.
set -eu
cd "$(dirname "$0")/.."
build=${CARACAL_BUILD:-build}
table() { # which, of which file
    echo
    "$build/tests/bench_page" "$build/${2-bench.json}" "$1"
    echo
}
scaling() { # axis: its picture and its table
    [ -e "docs/results/scaling-$1.jsonl" ] || return 0
    printf '\n![time and memory over %s](performance/%s.svg)\n\n' "$1" "$1"
    "$build/tests/scaling" draw "docs/results/scaling-$1.jsonl" "docs/performance/$1.svg"
    echo
}
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
{
    cat <<END
# Speed on a CPU

\`make bench\` on $(nproc) cores of an $machine, $(date -r "$build/bench.json" +%F), with nothing else running; medians. Everything is
measured in one run beside the machine's own limits, which are looked at before every line: twelve independent chains of
multiply-adds, and copying from memory to memory with stores that go past the caches.
END
    table limits
    cat <<'END'
The tables are made from `build/bench.json` by `tests/performance_page.sh`. A line of operations is the median of three passes over all
lines, minutes apart. A virtual machine's neighbours show: for seconds at a time its two cores may be two halves of one, and
together do what one does; or they are moved to where they share no cache, and gathering the threads takes 0.55
microseconds instead of 0.11. A line is timed again while either lasts (eight times at most); a training step is not, so that those on
two cores vary by a tenth between runs.

## What is wanted, and what is there

The worst line of each kind, on all cores; matrices in float32 where nothing else is said.
END
    table goals
    cat <<'END'
Why what is missing is missing, as far as we know:

- **Large products** stand within one or two hundredths of the goal, on either side of it, run after run. The innermost loop
  alone has 95% to 97% (64 x 512 x 256 on one core). 1024 x 1024 x 1024 loses 1.5% to rows 4 KiB apart, which share the sets
  of L1 (1008 x 1008 x 1008 does not), and 1% to 2% to adding four blocks of k to C, as the fixed order has it. Half of
  that came back when tiles asked for C in their last steps instead of their first (0.5% to 1.2% on most shapes, in turns).
- **4096 x 768 x 768 by columns** (tn): a column of A is spread over lines 16 KiB apart, for which a cache has few sets. Twelve
  panels of B packed at a time instead of eight, so that A is read once less, gave 0.6%. Asking for the lines into the
  second-level cache, where they would not be in L1's way, lost 1% to 3%.
- **Small products** are the first to suffer in other minutes: in a run later that day, with the cores apart for a part of the time,
  64 x 512 x 256 had 82% to 94% and 8 x 512 x 256 72% to 87%, and large ones 89% to 94%.
- **Products of experts**: all above the goal in this run; gradients of 512 columns, which read and write 8 MB, had 82% to
  90% between runs.
- **Memory**: below, with the table.

## Matrix products

Sums in the fixed order of [docs/determinism.md](determinism.md), packing included. Lines that say held
multiply by a weight that is packed already, as in a generation (`kernels/cpu/held.h`), and as oneDNN's are. Peers in float32 on
all cores, on the same matrices, the fastest of three times (`make peers`).
END
    table gemm
    cat <<'END'
In bf16 products of few rows suffer most: here both operands are packed anew each time. In a training step weights are packed
once, for all its micro-batches (`kernels/cpu/held.h`).

## Attention

Of MLA's shape, causal, forward and backward; FLOPs of the lower triangle only.
END
    table attention
    cat <<'END'
In a training step below it is less: operands come from other caches.

## Operations that stream memory

Buffers larger than the caches; bytes that the operation cannot avoid to move: every operand and every result once. The limit is
copying right before and right after the line, for in some minutes memory is nearly twice as fast as in others. A line may pass
100%: copying is the limit for as much read as written, and a core reads faster than it writes.

- A result of more than the last-level cache is written past the caches (`kernels/cpu/stream.h`): an ordinary store first reads
  the line that it changes, a third of all traffic. Smaller results stay in the cache for their readers, as in the steps below.
- A stream asks for what it will need a page ahead, where the hardware starts anew: at rows, at pages, at rows in no order.
- On one core an exponential (SwiGLU, cross-entropy, the hidden z-loss) or the choice of experts costs more than its bytes.
  `router_forward` moves 8 bytes for each expert of each token and looks K times at each of them: it is bound by its
  comparisons, and is 0.15% of a step.
- Below the 85% that we want on all cores: `combine_forward` at 256 columns; `copy_rows`, `rms_norm_backward` and `hidden_z` stand on
  either side of it. In this table `combine_forward` reads rows of 1 KB in no order. Since then its line has the order in which the exchange
  leaves rows, by expert and then by token, as each run has them, and had 72% to 87% in five runs. AdamW on denormal moments has
  60% of a minute in which copying had 110 GB/s, 99% of another, and as many GB/s in both.
- Reading rows in no order has a limit of its own. A loop that only adds up rows of 1 KB in registers, in the order of
  `combine_forward` and twelve rows ahead, moved 74% to 76% of what copying did in turns with it, and 53% in minutes in which copying
  had 80 GB/s; rows of 3 KB 78% to 85%, and 59%. Four sevenths of the bytes of `combine_forward` are such rows: beside that loop
  it had 82% to 86%, and 103% to 105% with 3 KB; `copy_rows` had 93%, and 97%. Asking up to six tokens or 13 rows ahead, for whole rows,
  for every second line first, or for `out` and `y` too gained no more than a repetition did; into the second-level cache it lost.
- `rms_norm_backward` is not bound by its arithmetic: out of the second-level cache a core does its rows at 73 to 76 GB/s. In
  turns with copying among the same buffers it had 95% to 101% at 256 columns and 91% to 95% at 768; in turns with the
  limit's own copying 76% to 84%, where the operation `copy` had 85% to 91%. Copying went from 14 to 85 GB/s within one
  minute, and in the same seconds had 46 GB/s between two buffers and 52 between two others (why is not known: what the caches
  keep, and where pages lie, differ). A fraction here is good to about a tenth.
END
    table memory_bound
    cat <<'END'
## Training steps

`configs/bench.yaml`; FLOPs as a model's are counted: 6 for each active parameter, and the causal half of attention.
END
    table step
    cat <<'END'
A run's first half is left out: until the router has settled, tokens have more FFN experts than the four that are counted, and
few experts have most of the tokens. This was a quiet quarter of an hour. Four runs of that day had 70% to 74% with threads and 72% to
73% with ranks, two ranks 1.82 to 1.86 times one core, bf16 1.60 to 1.68 times float32, a training step 3.5 to 3.9 times PyTorch's. Two cores cannot
make twice one core's tokens: a tenth of a step streams memory, of which one core alone gets 85% of what both get together.

### Where the time goes

One step on one rank with all cores, each operation timed (`tests/timed.c`), sixteen steps after the 32 in which the router comes to its budget.
FLOPs are those of matrix products and of the lower triangle of attention. Bytes are of every operand and result once, as if
nothing lay in a cache, so that an operation on what the one before it left there may pass the limit of copying. The limit is
whichever of the two takes longer. `build/tests/bench OUT.json --only=none --roofline=CONFIG` repeats it.
END
    table roofline
    cat <<'END'
Products and attention take about 89% of the time. Of the rest SwiGLU, the norms, and adding up gradients (`add`) are the largest.
The embedding's gradient is made of the ids that occur in a micro-batch alone (`model/embedding.h`), and on a rank alone it is added to
the step's sum in place, as the first micro-batch's gradients of all weights are written there. A micro-batch has 512 rows: an operation on its 512 KB is over in 10 to 50 microseconds, and
some of what it reads lies in the other core's cache. That is why the hidden z-loss stands far below the limit here, and at it
with large buffers.

The threads are our own (`launch/threads.c`): libgomp takes 0.45 microseconds to begin and end a parallel region here, 1.3 where
the cores share no cache. In turns with it, products of 8 x 512 x 256 took 7% to 10% less time, and a step about 1% less. Threads spin while
they wait, but not where other programs want the cores: then each wait is for a thread that is not running, and spinning takes the time that
it needs. With one other busy program on the two cores a step of four layers of `configs/nano.yaml` took 0.24 s (0.10 s alone), 0.8 s to 1.3 s
with threads that spin whatever happens, 0.22 s with threads that never do, which take 0.20 s alone.

Threads wait for one another at the end of each of some 4,000 operations a step, and the two cores are never equally fast for long:
5% of the threads' time went by so in the quietest seconds, and up to a third while a neighbour used one of the cores. So products
are balanced: a thread takes pieces of its own part from the front, and who is done takes them from the back
(`kernels/cpu/claims.h`); most of the operands stay where they were. Where a thread's rows
fit into its cache (`kernels/cpu/gemm_grid.c`), products of a layer are shared by rows as all other operations are, those of experts by
the rows of all together, and attention by sequences or heads that lie side by side, so that a thread mostly reads what it wrote. Steps of
both kinds in turn, in one process: 2.2% less time of all operations in minutes in which all on two cores took a tenth longer, and the
same within 0.5% in quiet ones.

## Without AVX-512

Most laptops have AVX2 alone. `make bench ISA=avx2` is the same on the same machine with vectors half as wide, the peers held to
them by their own switches; a fraction is of what AVX2 can do. One pass, 24 steps, without PyTorch.
END
    table limits bench-avx2.json
    table goals bench-avx2.json
    table step bench-avx2.json
    cat <<'END'
A tile of C is 6 x 16 instead of 14 x 32, for there are half as many registers of half the width: it loads more for each multiply-add.
Columns of A that lie a multiple of 4 KiB apart (weight gradients of matrices 1024 or 2048 wide) share a set of L1 that a low tile
comes back to too late: they are copied first, which made such products 1.3 to 1.6 times as fast. Of the operations that stream memory
cross-entropy and the hidden z-loss are bound by their exponentials here, on two cores, too.

## As work grows

Runs of `tests/scaling.yaml` (hidden 128, 4 layers, 16 + 8 experts, sequences of 256 tokens) in which one size grows (`make
scaling`), on one rank with all cores. The second line of the left picture is what the first point would become if time grew as the
model's FLOPs; that of the right one is the parameters' own: weights, two moments, and two sums of gradients. The rest is activations, and room for
a snapshot to save from.

### Length of a sequence, 4,096 tokens a micro-batch
END
    scaling seq_len
    cat <<'END'
Time per token grows no faster than FLOPs; attention's share of them is done at about the same speed. Memory does not depend
on the length: no matrix of scores is ever stored.

END
    echo "### Experts, half as many identity experts, 4 active"
    scaling experts
    cat <<'END'
FLOPs hardly grow, and of 32 times the experts a token notices a seventh of its time: products of fewer rows each, and gradients to be
zeroed and weights to be updated once a step of 8,192 tokens, which are 9 times as many.

END
    echo "### Layers, 2,048 tokens a micro-batch"
    scaling layers
    cat <<'END'
Both are straight lines: a layer costs the same whether there are 4 or 56. Nothing here grows faster than the FLOPs it is for.
END
} >docs/performance.new
mv docs/performance.new docs/performance.md

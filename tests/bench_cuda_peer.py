"""Times PyTorch on the lines that build/cuda/tests/bench_cuda has written, and prints both side by side:

    python3 tests/bench_cuda_peer.py OURS.json PEER.json

Products in bf16 with bf16 results (torch.matmul), grouped ones by torch._grouped_mm where it exists, else expert by
expert; attention by scaled_dot_product_attention with every backend that takes the shape, the fastest counting.
"""

import json
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SAMPLES, BUDGET = 7, 0.1


def seconds(run):
    """Median seconds of one call, by events."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()

    def sample(calls):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / calls * 1e-3

    calls = max(1, int(BUDGET / SAMPLES / max(sample(1), 1e-6)))
    return sorted(sample(calls) for _ in range(SAMPLES))[SAMPLES // 2]


def uniform(*shape):
    return torch.rand(*shape, device="cuda", dtype=torch.bfloat16) - 0.5


def gemm(x):
    m, n, k = x["m"], x["n"], x["k"]
    a = uniform(k, m).t() if x["form"] == "TN" else uniform(m, k)
    b = uniform(n, k).t() if x["form"] == "NT" else uniform(k, n)
    return seconds(lambda: torch.matmul(a, b)), "matmul"


def grouped(x):
    experts, rows, n, k, total = x["experts"], x["rows"], x["n"], x["k"], x["m"]
    offsets = torch.arange(rows, total + 1, rows, device="cuda", dtype=torch.int32)
    if x["name"] == "grouped_gemm_dw":
        a, b = uniform(total, n), uniform(total, k)
        left, right = a.t(), b
        one_by_one = lambda: [a[e * rows:(e + 1) * rows].t() @ b[e * rows:(e + 1) * rows] for e in range(experts)]
    else:
        a = left = uniform(total, k)
        b = right = uniform(experts, n, k).transpose(1, 2) if x["form"] == "NT" else uniform(experts, k, n)
        one_by_one = lambda: [a[e * rows:(e + 1) * rows] @ b[e] for e in range(experts)]
    ways = {"one by one": one_by_one}
    if hasattr(torch, "_grouped_mm"):
        ways["_grouped_mm"] = lambda: torch._grouped_mm(left, right, offs=offsets)
    return best(ways)


def best(ways):
    found = (float("inf"), "none")
    for name, run in ways.items():
        try:
            found = min(found, (seconds(run), name))
        except RuntimeError as e:
            print(f"  {name}: {str(e).splitlines()[0][:100]}", file=sys.stderr)
    return found


def attention(x):
    b, h, t, qk, v = x["batch"], x["heads"], x["seq"], x["nope"] + x["rope"], x["v"]
    backward, ways = x["name"] == "attention_backward", {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        for width in {v, qk}:  # some backends want values as wide as keys
            q, k = (uniform(b, h, t, qk).requires_grad_(backward) for _ in range(2))
            value = uniform(b, h, t, width).requires_grad_(backward)

            def forward(q=q, k=k, value=value, backend=backend):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, value, is_causal=True)

            name = f"{backend.name} v {width}"
            if not backward:
                ways[name] = forward
                continue
            try:
                o = forward()
            except RuntimeError as e:
                print(f"  {name}: {str(e).splitlines()[0][:100]}", file=sys.stderr)
                continue
            d_o = torch.rand_like(o) - 0.5
            ways[name] = lambda o=o, q=q, k=k, value=value, d_o=d_o: torch.autograd.grad(
                o, (q, k, value), d_o, retain_graph=True)
    return best(ways)


def main(ours_path, peer_path):
    torch.manual_seed(1)
    ours = json.load(open(ours_path))
    lines, known = list(ours["lines"]), {}
    print(f"{ours['device']}; PyTorch {torch.__version__} on {torch.cuda.get_device_name()}")
    for i, x in enumerate(ours["lines"]):
        if x["name"] == "copy":
            continue
        sizes = tuple(v for key, v in x.items() if key not in ("held", "milliseconds", "tflops"))
        if sizes not in known:  # the same whether our operands were rounded before
            known[sizes] = (attention if x["seq"] else grouped if x["experts"] else gemm)(x)
            torch.cuda.empty_cache()
        t, by = known[sizes]
        if by == "none":
            continue
        tflops = x["tflops"] * x["milliseconds"] * 1e-3 / t
        lines[i] = {**x, "peer_milliseconds": 1e3 * t, "peer_tflops": tflops, "peer": by, "ratio": x["tflops"] / tflops}
        what = " ".join(f"{key} {x[key]}" for key in ("m", "n", "k", "experts", "rows", "seq", "heads", "nope") if x[key])
        print(f"{x['name']:19} {x['form']:2} {'held' if x['held'] else '    '} {what:48} {x['tflops']:7.1f} "
              f"{tflops:7.1f} TFLOP/s {100 * x['tflops'] / tflops:6.1f}%  {by}", flush=True)
        with open(peer_path, "w") as out:  # by now: this may be cut short
            json.dump({**ours, "peer": torch.__version__, "lines": lines}, out, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:3])

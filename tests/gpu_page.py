"""Tables of what a GPU did (tests/gpu_session.sh), in Markdown, beside what issue 7 wants of it:

    python3 tests/gpu_page.py RESULTS... >docs/performance-gpu.md

RESULTS: folders of one session's calls; of a file that several have, the last counts, and their checks are joined.
"""

import json
import pathlib
import statistics
import sys


def found(folders, name):
    paths = [p for p in (pathlib.Path(f) / name for f in folders) if p.exists() and p.stat().st_size]
    return paths[-1].read_text() if paths else None


def table(title, head, rows):
    if not rows:
        return
    print(f"\n## {title}\n\n| {' | '.join(head)} |\n| --- |{' --: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def percent(x):
    return f"{100 * x:.0f}%"


def checks(folders):
    last = {}
    for folder in folders:
        path = pathlib.Path(folder) / "gpu.json"
        if path.exists():
            report = json.loads(path.read_text())
            last.update({x["name"]: x for x in report["checks"] + [{**p, "name": f"part {p['name']}"} for p in report["parts"]]})
            machine = f"{report['machine']}, {report['date']}"
    print(f"# Speed on a GPU\n\n{machine if last else ''}")
    table("Checks", ("", "result", "seconds"), [(n, x["result"], str(x["seconds"])) for n, x in last.items()])


def sizes(x):
    return x["form"] + " " + " x ".join(str(x[key]) for key in "mnk")


def peer_of(x):
    return (f"{x['peer_tflops']:.0f}", percent(x["ratio"]), x["peer"]) if "ratio" in x else ("", "", "")


def products(lines):
    by = ("PyTorch", "of it", "by")
    dense = [x for x in lines if x["name"] == "gemm"]
    table("Products, TFLOP/s (wanted: 95% of PyTorch's; held: operands rounded before)", ("m x n x k", "ours", *by),
          [(sizes(x) + (", held" if x["held"] else ""), f"{x['tflops']:.0f}", *peer_of(x)) for x in dense])
    rates = {(x["form"], x["m"], x["n"], x["k"]): x["tflops"] for x in dense if x["held"]}
    rows = []
    for x in lines:
        if x["experts"]:
            # the dense product of as many rows stands beside those of 512 rows an expert
            m, n, k = (x["n"], x["k"], x["m"]) if x["form"] == "TN" else (x["m"], x["n"], x["k"])
            beside = rates.get((x["form"], m, n, k))
            rows.append((f"{x['experts']} x {x['rows']} rows, {x['form']} {x['n']} x {x['k']}" + (", held" if x["held"] else ""),
                         f"{x['tflops']:.0f}", percent(x["tflops"] / beside) if beside else "", *peer_of(x)))
    table("Grouped products, TFLOP/s (wanted: 70% of the dense rate from 512 rows on)", ("", "ours", "of dense", *by), rows)
    table("Attention, TFLOP/s of the triangle (wanted of PyTorch's best: forward 70%, backward 60%)", ("", "ours", *by),
          [(f"{x['name'][10:]} {x['batch']} x {x['seq']}, {x['heads']} heads of {x['nope']} + {x['rope']} and {x['v']}",
            f"{x['tflops']:.0f}", *peer_of(x)) for x in lines if x["seq"]])


def step(timing, peer):
    rows = []
    if timing:
        steps = [json.loads(line) for line in timing.splitlines()]
        half = steps[len(steps) // 2:]
        speed = statistics.median(x["tokens_per_second"] for x in half)
        rows.append(("ours", f"{speed:.0f}", percent(statistics.median(x["mfu"] for x in half)), ""))
    if peer:
        p = json.loads(peer.splitlines()[-1])  # the best of the ways tried by then
        rows.append((p["peer"], f"{p['tokens_per_second']:.0f}", "", f"{speed / p['tokens_per_second']:.2f}" if timing else ""))
    table("A training step (wanted: 2 times the peer's tokens/s)", ("", "tokens/s", "MFU", "times"), rows)


def main(folders):
    checks(folders)
    bench = found(folders, "bench-cuda-peer.json") or found(folders, "bench-cuda.json")
    if bench:
        try:
            products(json.loads(bench)["lines"])
        except ValueError:  # cut short, behind a line
            products(json.loads(bench + "]}")["lines"])
    step(found(folders, "timing.jsonl"), found(folders, "peer.json"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])

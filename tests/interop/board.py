"""Our TensorBoard event files in TensorBoard's own reader: every number of a run's records, and no other; also of a run
that lost the steps after its last checkpoint and went on from there."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from common import check, finish, run

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KEYS = dict(model__num_layers=2, model__hidden_size=64, train__seq_len=64, train__eval_every=4, train__eval_samples=2,
            loss__mtp_coef=0.1, loss__mtp_start=3, checkpoint__every=3, metrics__tensorboard="true", metrics__digest_every=5)


def train(where, steps):
    keys = [f"--{key.replace('__', '.')}={value}" for key, value in KEYS.items()]
    run("caracal", "train", "configs/nano.yaml", f"--run.dir={where}", f"--train.steps={steps}", *keys)


def rows(where, name):
    return [json.loads(line) for line in (where / f"{name}.jsonl").read_text().splitlines()]


def numbers(group, row):
    """(tag, value) of a row's numbers: GROUP/key, one for each layer of a list, one for each entry of an object."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from numbers(f"{group}/{key}", value)
        elif isinstance(value, list):
            yield from ((f"{key}/{i:02}", x) for i, x in enumerate(value) if x is not None)
        elif isinstance(value, (int, float)) and key != "step":
            yield f"{group}/{key}", value


def wanted(where):
    """{(tag, step): value} of the three records; hexadecimal ones are exact, others have nine digits."""
    found = {}
    for group in ("metrics", "timing", "eval"):
        for row in rows(where, group):
            found.update({(tag, row["step"]): value for tag, value in numbers(group, row)})
            found.update({(f"{group}/{key[:-4]}", row["step"]): float.fromhex(value)
                          for key, value in row.items() if key.endswith("_hex")})
    return found


def read_back(where):
    reader = EventAccumulator(str(where / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    events = [(tag, e) for tag in reader.Tags()["scalars"] for e in reader.Scalars(tag)]
    return {(tag, e.step): e.value for tag, e in events}, len(events)


def compare(name, where, last):
    ours, (theirs, events) = wanted(where), read_back(where)
    steps = {step for _, step in ours}
    check(f"{name}: the same scalars at the same steps, each once",
          ours.keys() == theirs.keys() and events == len(theirs) and steps == set(range(1, last + 1)),
          f"{events} events, {len(ours)} numbers of {len(steps)} steps"
          + "".join(f", {tag} {step}" for tag, step in sorted(ours.keys() ^ theirs.keys())[:3]))
    exact = [key for key in ours if key[0] in ("metrics/loss", "metrics/grad_norm")]
    check(f"{name}: loss and gradient norm to the last bit",
          len(exact) == 2 * last and all(np.float32(ours[key]) == np.float32(theirs[key]) for key in exact))
    # nine digits rounded once more may land on the float beside
    off = [key for key in ours if key not in theirs
           or not abs(np.float32(ours[key]) - np.float32(theirs[key])) <= np.spacing(np.float32(abs(ours[key])))]
    check(f"{name}: every number, as floats", not off, f"{len(off)} of {len(ours)} differ {off[:3]}")


def main(where):
    train(where, 8)
    compare("a run", where, 8)
    shutil.rmtree(where / "checkpoints/step-00000008")  # as if it had been killed before that one
    train(where, 11)
    files = list((where / "tensorboard").iterdir())
    check("a file for each start", len(files) == 2, ", ".join(f.name for f in sorted(files)))
    compare("resumed from step 6 of 8", where, 11)


if __name__ == "__main__":
    print(f"tensorboard {tensorboard.__version__}")
    main(Path(sys.argv[1]))
    finish()

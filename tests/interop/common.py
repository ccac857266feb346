"""What the interop tests share: the program under test, the demo's text as tokens, and how results are reported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
DEMO = BUILD / "demo"
SOURCES = ["english", "chinese", "c", "python", "math"]
failures = []


def check(name, good, figure=""):
    print(f"{'ok    ' if good else 'not ok'} {name}{': ' if figure else ''}{figure}", flush=True)
    if not good:
        failures.append(name)


def finish():
    sys.exit(1 if failures else 0)


def run(program, *arguments, text=None):
    """Output of a program of the build as bytes; it must succeed."""
    result = subprocess.run([BUILD / program, *map(str, arguments)], input=text, cwd=TOP, capture_output=True)
    if result.returncode:
        sys.exit(f"{program} {' '.join(map(str, arguments))}: exit code {result.returncode}\n{result.stderr.decode()}")
    return result.stdout


def relative(a, b):
    """max |a - b| / max |b|, infinite where something is not finite."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return np.abs(a - b).max() / np.abs(b).max()


class Indexed:
    """Token files in Megatron's indexed layout, read as its public description has it and not as our reader does."""

    TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}

    def __init__(self, prefix):
        index = Path(f"{prefix}.idx").read_bytes()
        if index[:9] != b"MMIDIDX\x00\x00":
            raise ValueError(f"{prefix}.idx: not an index")
        version, code = np.frombuffer(index, "<u8", 1, 9)[0], index[17]
        sequences, documents = (int(n) for n in np.frombuffer(index, "<u8", 2, 18))
        at = 34
        self.lengths = np.frombuffer(index, "<i4", sequences, at)
        self.pointers = np.frombuffer(index, "<i8", sequences, at + 4 * sequences)
        self.documents = np.frombuffer(index, "<i8", documents, at + 12 * sequences)
        if version != 1 or len(index) < at + 12 * sequences + 8 * documents:  # behind it: which tokenizer made them
            raise ValueError(f"{prefix}.idx: version {version}, {len(index)} bytes")
        self.tokens = np.memmap(f"{prefix}.bin", self.TYPES[code], "r")

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        start = self.pointers[i] // self.tokens.itemsize
        return self.tokens[start:start + self.lengths[i]]


def real_text(split, rows, length):
    """Rows [rows, length] of the demo's tokens, the sources in turn."""
    files = [Indexed(DEMO / "tokens" / f"{name}.{split}").tokens for name in SOURCES]
    at = [files[i % 5][i // 5 * length:(i // 5 + 1) * length] for i in range(rows)]
    return np.stack(at).astype(np.int32)


def quiet():
    """transformers prints progress and advice unless told otherwise; it must not look for models on the network."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1",
                      TRANSFORMERS_NO_ADVISORY_WARNINGS="1", TOKENIZERS_PARALLELISM="true")

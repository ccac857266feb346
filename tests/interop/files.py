"""Our files in other programs' hands: tokenizer.json in the `tokenizers` library, token files in a reader of their own,
checkpoints in h5py."""

import collections
import json
import os
import random
import sys
from pathlib import Path

import numpy as np

from common import BUILD, DEMO, SOURCES, Indexed, check, finish, quiet, run

quiet()
os.environ["HDF5_PLUGIN_PATH"] = str(BUILD)
import h5py
import tokenizers
from safetensors.numpy import load_file

TOKENIZER = DEMO / "tokenizer.json"


def ours(text):
    """Our ids of some bytes."""
    return np.array(run("caracal", "tokenizer", "encode", f"--tokenizer={TOKENIZER}", text=text).split(), np.int32)


def theirs(library, texts):
    return [np.array(e.ids, np.int32) for e in library.encode_batch_fast(texts, add_special_tokens=False)]


def documents(source):
    with open(DEMO / "text" / f"{source}.jsonl", encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in f]


def same_ids(name, library, texts):
    mine, other = ours("".join(texts).encode()), np.concatenate(theirs(library, ["".join(texts)]))
    check(f"ids, {name}", len(mine) > 0 and np.array_equal(mine, other), f"{len(other)} tokens")


def random_texts(count, length):
    """Code points of every plane and kind, and what tokenizers stumble over."""
    draw = random.Random(7)
    odd = ["<|endoftext|>", "'s", "'LL", "\r\n", "\u0301", "\u200d", "\ufeff", "\x00", "\u00a0", "中文", "한글", "١٢٣", "123456",
           "  \n \t", "éÉ", "ß", "👩‍👩‍👧", "\U0010ffff", "ǅ", "ªº", "〇", "ｶﾅ"]
    kinds = [lambda: chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)])),
             lambda: chr(draw.randrange(0x20, 0x7F)), lambda: chr(draw.randrange(0x3000, 0xA000)),
             lambda: draw.choice(odd), lambda: chr(draw.randrange(0x300))]
    return ["".join(draw.choice(kinds)() for _ in range(length)) for _ in range(count)]


def tokenizer_tests(library):
    for source in SOURCES:
        texts = documents(source)
        for mine in (texts[::2], texts[1::2]):  # two runs a source: half of the text at a time
            same_ids(f"{source}, {len(mine)} documents", library, mine)
    same_ids("random Unicode", library, random_texts(400, 500))
    # the library takes no bytes that are not UTF-8; for us they are bytes like others, and come back
    torn = random.Random(8).randbytes(200000)
    ids = " ".join(map(str, ours(torn))).encode()
    check("bytes that are not UTF-8 come back", run("caracal", "tokenizer", "decode", f"--tokenizer={TOKENIZER}",
                                                    text=ids) == torn)
    check("decoding", all(library.decode(e.ids) == t for t in random_texts(50, 200) for e in [library.encode(t)]))


def shard_tests(library):
    """A source's two token files hold its documents, each once, as the library encodes them, ended by eos."""
    eos = library.token_to_id("<|endoftext|>")
    for source in SOURCES:
        files = [Indexed(DEMO / "tokens" / f"{source}.{split}") for split in ("train", "valid")]
        found = collections.Counter(f[i].tobytes() for f in files for i in range(len(f)))
        kind = files[0].tokens.dtype
        wanted = collections.Counter(np.append(ids, eos).astype(kind).tobytes() for ids in theirs(library, documents(source)))
        whole = all(f.documents[-1] == len(f) and f.lengths.sum() == len(f.tokens) for f in files)
        check(f"token files, {source}", whole and found == wanted,
              f"{sum(found.values())} documents, {sum(len(f.tokens) for f in files)} tokens")


def checkpoint_tests(where):
    """Every dataset of a checkpoint, by h5py through our filter plugin, beside the export."""
    checkpoint = max((where / "trained/run/checkpoints").iterdir())
    exported, names = load_file(where / "whole/model.safetensors"), set()
    datasets, different = 0, []

    def look(name, item):
        nonlocal datasets
        if not isinstance(item, h5py.Dataset):
            return
        values, datasets = item[()], datasets + 1
        kind, _, rest = name.partition("/")
        names.add(name)
        if not np.isfinite(values).all():
            different.append(name)
        if kind == "weights" and not np.array_equal(values, exported[rest]):
            different.append(name)

    for path in sorted(checkpoint.glob("*.h5")):
        with h5py.File(path) as f:
            f.visititems(look)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    missing = {f"weights/{name}" for name in exported if name != "model.mtp.embed_tokens.weight"} - names
    check("checkpoint in h5py", datasets == len(manifest["tensors"]) and not different and not missing,
          f"{datasets} datasets in {len(list(checkpoint.glob('*.h5')))} files, {len(exported)} tensors of the export equal")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(f"tokenizers {tokenizers.__version__}, h5py {h5py.__version__}, numpy {np.__version__}")
    library = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    library.encode_special_tokens = True  # a text is a text: <|endoftext|> spelt in it is no token
    tokenizer_tests(library)
    shard_tests(library)
    run("caracal", "export", where / "trained/run/checkpoints", where / "whole")
    checkpoint_tests(where)
    finish()

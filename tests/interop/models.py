"""Our export in transformers, and what transformers saved in our program: logits, losses and weights."""

import shutil
import sys
from pathlib import Path

import numpy as np

from common import DEMO, check, finish, quiet, real_text, relative, run

quiet()
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import AutoTokenizer, LongcatFlashConfig, LongcatFlashForCausalLM

LENGTH, ROWS, LIMIT = 128, 10, 1e-5
NEWEST = int(transformers.__version__.split(".")[0]) >= 5
LAYOUT = "transformers-5" if NEWEST else "published"

# shapes that a reader may get wrong: identity experts or none, one expert chosen, one head
SHAPES = {
    "trained": {},
    "no identity experts": {"model.zero_expert_num": 0, "router.expected_ffn_experts": 4, "model.moe_topk": 4},
    "one expert chosen": {"model.moe_topk": 1, "router.expected_ffn_experts": 0.6},
    "one head, odd sizes": {"model.num_attention_heads": 1, "model.hidden_size": 52, "model.q_lora_rank": 20,
                            "model.n_routed_experts": 6, "router.lb_groups": 3, "model.zero_expert_num": 1,
                            "router.expected_ffn_experts": 3},
}


def train(where, changes):
    keys = {"model.num_layers": 3, "model.hidden_size": 64, "model.n_routed_experts": 8, "model.zero_expert_num": 4,
            "model.moe_topk": 4, "router.expected_ffn_experts": 2.5, "router.bias_rate": 1, "loss.mtp_coef": 0.1,
            "train.seq_len": LENGTH, "train.micro_batches": 4, "train.steps": 12, "train.eval_every": 0,
            "train.eval_samples": 1, "checkpoint.every": 0, "run.dir": where, **changes}
    run("caracal", "train", "configs/nano.yaml", *[f"--{key}={value}" for key, value in keys.items()])


def ours(checkpoints, tokens, where):
    tokens.tofile(where / "tokens")
    run("tests/logits", checkpoints, where / "tokens", where / "ours.safetensors")
    out = load_file(where / "ours.safetensors")
    return out["logits"], out["loss"]


def theirs(model, tokens):
    ids = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        logits = model(ids[:, :LENGTH]).logits
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:LENGTH + 1], reduction="none")
    return logits.numpy(), loss.numpy()


def compare(name, mine, other):
    logits, loss = relative(mine[0], other[0]), abs(mine[1].mean() / other[1].mean() - 1)
    check(name, logits < LIMIT and loss < LIMIT,
          f"logits differ by {logits:.1e} of the largest, mean loss {mine[1].mean():.6f} by {loss:.1e}")


def load(directory):
    """Without a tensor too few or too many, or this is an error."""
    model, told = LongcatFlashForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, output_loading_info=True)
    if any(told.values()):
        raise RuntimeError(f"{directory}: {told}")
    return model.eval()


def tensors(directory):
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            found.update({name: f.get_tensor(name) for name in f.keys()})
    return found


def export_and_load(where, tokens):
    for name, changes in SHAPES.items():
        base = where / name.replace(" ", "-")
        train(base / "run", changes)
        run("caracal", "export", base / "run/checkpoints", base / "hf", f"--layout={LAYOUT}", "--max-shard-size=1MB")
        if NEWEST and changes.get("model.moe_topk") == 1:
            continue  # transformers 5 cannot run such a model, whoever made it: see below
        compare(f"export, {name}", ours(base / "run/checkpoints", tokens, where), theirs(load(base / "hf"), tokens))


def whole_of_one_export(where, tokens):
    """The rest that is to be said about an export, with one of them."""
    base = where / "trained"
    model = load(base / "hf")
    biases = torch.stack([layer.mlp.router.e_score_correction_bias for layer in model.model.layers])
    used = {"hits": 0}
    model.model.layers[0].mlp.router.register_forward_hook(
        lambda _, __, out: used.update(hits=used["hits"] + int((next(x for x in out if not x.is_floating_point()) >= 8).sum())))
    theirs(model, tokens)
    check("the export has biases, and its identity experts are chosen", bool(biases.abs().max() > 0) and used["hits"] > 0,
          f"largest bias {biases.abs().max():.3g}, chosen {used['hits']} times in layer 0")
    text = "int main(void) { return 0; } // 你好 1234\n"
    tokenized = AutoTokenizer.from_pretrained(base / "hf")(text, return_tensors="pt")
    ids = tokenized["input_ids"][0].tolist()
    mine = run("caracal", "tokenizer", "encode", f"--tokenizer={DEMO / 'tokenizer.json'}", text=text.encode())
    check("AutoTokenizer loads it", ids == [int(x) for x in mine.split()])
    out = model.generate(**tokenized, max_new_tokens=8, do_sample=False)
    check("generate() runs, with its cache", torch.equal(out, model.generate(torch.tensor([ids]), max_new_tokens=8,
                                                                             do_sample=False, use_cache=False)))

    run("caracal", "export", base / "run/checkpoints", base / "half", "--dtype=bf16")
    whole, half = tensors(base / "hf"), tensors(base / "half")
    kept = {name for name in half if ".router." in name}
    same = all(torch.equal(t, whole[name].to(torch.bfloat16) if name not in kept else whole[name])
               for name, t in half.items())
    check("bf16 is torch's rounding, bit for bit", same and kept and len(half) > 100, f"{len(half)} tensors")
    check("the MTP head is there", "model.mtp.layers.0.eh_proj.weight" in half and torch.equal(
        whole["model.mtp.embed_tokens.weight"], whole["model.embed_tokens.weight"]))


def what_transformers_saves(where, tokens):
    torch.manual_seed(3)
    config = LongcatFlashConfig(
        vocab_size=4096, hidden_size=64, num_layers=2, num_attention_heads=4, q_lora_rank=32, kv_lora_rank=16,
        qk_nope_head_dim=16, qk_rope_head_dim=8, head_dim=8, v_head_dim=16, ffn_hidden_size=96,
        expert_ffn_hidden_size=24, n_routed_experts=8, zero_expert_num=4, moe_topk=4, routed_scaling_factor=2.0,
        rope_theta=1e4, initializer_range=0.05, max_position_embeddings=LENGTH)
    model = LongcatFlashForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.router.e_score_correction_bias.normal_(0, 0.02)
    for dtype, size in ((torch.float32, "200KB"), (torch.float32, "5GB"), (torch.bfloat16, "5GB"), (torch.float16, "5GB")):
        name = f"{str(dtype).removeprefix('torch.')}, {size}"
        base = where / name.replace(", ", "-")
        model.to(dtype).save_pretrained(base / "hf", max_shard_size=size)
        shutil.copy(DEMO / "tokenizer.json", base / "hf/tokenizer.json")
        run("caracal", "import", base / "hf", base / "run")
        run("caracal", "export", base / "run/checkpoints", base / "again")
        saved, again = tensors(base / "hf"), tensors(base / "again")
        same = all(torch.equal(t, saved[key].float()) for key, t in again.items())
        check(f"import of {name}: every weight as it was", same and len(again) > 80, f"{len(again)} tensors")
        compare(f"import of {name}", ours(base / "run/checkpoints", tokens, where), theirs(load(base / "hf"), tokens))


def what_transformers_refuses(where):
    """What docs/interop.md says of versions: it must be corrected when this changes."""
    if not NEWEST:
        return
    run("caracal", "export", where / "trained/run/checkpoints", where / "plain")
    for name, directory in (("per-expert files with identity experts", "plain"), ("one expert chosen", "one-expert-chosen/hf")):
        try:
            load(where / directory)(torch.zeros(1, 4, dtype=torch.int64))
            refused = False
        except (RuntimeError, ValueError):
            refused = True
        check(f"transformers {transformers.__version__} still refuses: {name}", refused)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, exports as {LAYOUT}")
    tokens = real_text("valid", ROWS, LENGTH + 2)
    export_and_load(where, tokens)
    whole_of_one_export(where, tokens)
    what_transformers_saves(where, tokens)
    what_transformers_refuses(where)
    finish()

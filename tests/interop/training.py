"""Twenty steps of our training step beside PyTorch's training of transformers' LongcatFlashForCausalLM: same weights,
same tokens.  What transformers has not - load-balance loss, hidden z-loss, MTP head, bias controller - is written here
in plain PyTorch after the technical report's equations; optimizer and clipping are torch's own."""

import json
import math
import sys
from pathlib import Path

import numpy as np

from common import check, finish, quiet, real_text, run

quiet()
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from transformers import LongcatFlashConfig, LongcatFlashForCausalLM
from transformers.models.longcat_flash import modeling_longcat_flash as parts

# N FFN experts, Z identity experts, K chosen, K_e of them meant to be FFN experts, D groups
N, Z, K, KE, D = 8, 4, 4, 2.5, 4
STEPS, MICRO_BATCHES, BATCH, LENGTH = 20, 4, 2, 64
LB, HIDDEN_Z, MTP, BIAS_RATE = 0.01, 1e-4, 0.3, 0.5
ADAM = dict(lr=5e-4, betas=(0.9, 0.95), eps=1e-16)
DECAY, CLIP = 0.1, 1.0
SIZES = dict(vocab_size=4096, hidden_size=64, num_layers=2, num_attention_heads=4, q_lora_rank=32, kv_lora_rank=16,
             qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, ffn_hidden_size=96, expert_ffn_hidden_size=24,
             n_routed_experts=N, zero_expert_num=Z, moe_topk=K, routed_scaling_factor=2.0)


class MtpHead(torch.nn.Module):
    """One dense layer: at position t it sees the embedding of token t+1 and the model's output, and predicts t+2."""

    def __init__(self, config):
        super().__init__()
        norm = lambda: parts.LongcatFlashRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.enorm, self.hnorm, self.input_norm, self.post_norm, self.norm = (norm() for _ in range(5))
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.attention = parts.LongcatFlashMLA(config, layer_idx=0)
        self.mlp = parts.LongcatFlashMLP(config)

    def forward(self, embedding, hidden, positions):
        x = self.eh_proj(torch.cat((self.enorm(embedding), self.hnorm(hidden)), -1))
        x = x + self.attention(self.input_norm(x), position_embeddings=positions, attention_mask=None)[0]
        return self.norm(x + self.mlp(self.post_norm(x)))

    def published(self):
        names = {"enorm": "layers.0.enorm.m", "hnorm": "layers.0.hnorm.m", "input_norm": "layers.0.input_layernorm",
                 "post_norm": "layers.0.post_attention_layernorm", "norm": "norm", "eh_proj": "layers.0.eh_proj",
                 "attention": "layers.0.self_attn", "mlp": "layers.0.transformer_layer.mlp"}
        found = {}
        for name, value in self.state_dict().items():
            first, rest = name.split(".", 1)
            found[f"model.mtp.{names[first]}.{rest}"] = value
        return found


class Watched:
    """What a forward pass leaves behind: each router's probabilities and choices, and the state before the last norm."""

    def __init__(self, model):
        self.model, self.probabilities, self.chosen = model, [], []
        for layer in model.model.layers:
            layer.mlp.router.register_forward_hook(self.router)
        model.model.norm.register_forward_hook(self.norm)

    def router(self, router, inputs, _):
        x = inputs[0].reshape(-1, inputs[0].shape[-1])
        probability = F.linear(x, router.classifier.weight).softmax(-1)
        self.probabilities.append(probability)
        self.chosen.append(router.get_topk_indices(probability))

    def norm(self, _, inputs, output):
        self.hidden, self.final = inputs[0], output

    def forward(self, ids):
        self.probabilities, self.chosen = [], []
        return self.model(ids, use_cache=False).logits


def load_balance(probability, counts):
    """Eq. 3-5: groups of FFN experts, and the identity experts as one more; no gradient through the counts."""
    tokens = probability.shape[0]
    mean = probability.mean(0)
    loss = sum(counts[g * N // D:(g + 1) * N // D].sum() * D / (KE * tokens) * mean[g * N // D:(g + 1) * N // D].sum()
               for g in range(D))
    return loss + counts[N:].sum() / ((K - KE) * tokens) * mean[N:].sum()


def micro_batch(watched, head, tokens):
    """Losses, and how often each layer chose each expert."""
    model, ids = watched.model, tokens[:, :LENGTH]
    logits = watched.forward(ids)
    cross_entropy = lambda logits, targets: F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    losses = {"lm": cross_entropy(logits, tokens[:, 1:LENGTH + 1])}
    counts = [torch.bincount(chosen.flatten(), minlength=N + Z) for chosen in watched.chosen]
    losses["lb"] = sum(load_balance(p, c) for p, c in zip(watched.probabilities, counts))
    losses["z"] = torch.logsumexp(watched.hidden.abs(), -1).square().mean()
    positions = model.model.rotary_emb(watched.final, torch.arange(LENGTH)[None])
    ahead = head(model.model.embed_tokens(tokens[:, 1:LENGTH + 1]), watched.final, positions)
    losses["mtp"] = cross_entropy(model.lm_head(ahead), tokens[:, 2:])
    losses["total"] = losses["lm"] + LB * losses["lb"] + HIDDEN_Z * losses["z"] + MTP * losses["mtp"]
    return losses, counts


def train(model, head, tokens):
    watched, layers, steps = Watched(model), model.model.layers, []
    every = [*model.named_parameters(), *head.named_parameters()]
    optimizer = torch.optim.AdamW([{"params": [p for _, p in every if p.dim() > 1], "weight_decay": DECAY},
                                   {"params": [p for _, p in every if p.dim() == 1], "weight_decay": 0.0}], **ADAM)
    for step in tokens:
        optimizer.zero_grad()
        sums, counts = {}, [torch.zeros(N + Z, dtype=torch.int64) for _ in layers]
        for part in step:
            losses, chosen = micro_batch(watched, head, part)
            (losses["total"] / MICRO_BATCHES).backward()
            sums = {key: sums.get(key, 0.0) + value.item() / MICRO_BATCHES for key, value in losses.items()}
            counts = [a + b for a, b in zip(counts, chosen)]
        sums["grad_norm"] = torch.nn.utils.clip_grad_norm_([p for _, p in every], CLIP).item()
        optimizer.step()
        for layer, count in zip(layers, counts):  # the report's rule: b += mu (K_e/(K N) - T_i/(K T_all))
            error = KE / (K * N) - count[:N].double() / (K * MICRO_BATCHES * BATCH * LENGTH)
            layer.mlp.router.e_score_correction_bias[:N] += (BIAS_RATE * error).float()
        steps.append({**sums, "counts": [c.tolist() for c in counts]})
    return steps


def write_case(where, model, head, tokens):
    """The input of tests/tool_replay.c, which drives our training step."""
    model.save_pretrained(where / "hf")
    weights = {**load_file(where / "hf/model.safetensors"), **head.published()}
    save_file({name: t.clone().contiguous() for name, t in weights.items()}, where / "model.safetensors")
    keys = dict(SIZES, rope_theta=1e4, rms_norm_eps=1e-5, seq_len=LENGTH, micro_batches=MICRO_BATCHES, micro_batch=BATCH,
                steps=STEPS, lb_alpha=LB, lb_groups=D, expected_ffn_experts=KE, hidden_z_coef=HIDDEN_Z, mtp_coef=MTP,
                bias_rate=BIAS_RATE, bias_kp=0, bias_ki=1, bias_kd=0, lr=ADAM["lr"], beta1=ADAM["betas"][0],
                beta2=ADAM["betas"][1], eps=ADAM["eps"], weight_decay=DECAY, clip=CLIP)
    (where / "config.json").write_text(json.dumps(keys))
    (where / "tokens.json").write_text(json.dumps(tokens.tolist()))


def main(where):
    torch.manual_seed(5)
    model = LongcatFlashForCausalLM(LongcatFlashConfig(**SIZES, head_dim=8, rope_theta=1e4, initializer_range=0.05)).train()
    head = MtpHead(model.config)
    for name, p in head.named_parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.05)
    rows = real_text("train", STEPS * MICRO_BATCHES * BATCH, LENGTH + 2)
    tokens = torch.from_numpy(rows.astype(np.int64)).view(STEPS, MICRO_BATCHES, BATCH, LENGTH + 2)
    write_case(where, model, head, tokens)
    run("tests/replay", where, where / "out")
    ours = json.loads((where / "out/steps.json").read_text())["steps"]
    theirs = train(model, head, tokens)
    for key, limit in (("lm", 1e-5), ("lb", 1e-5), ("z", 1e-5), ("mtp", 1e-5), ("total", 1e-5), ("grad_norm", 1e-4)):
        off = max(abs(a[key] / b[key] - 1) if math.isfinite(a[key]) else math.inf for a, b in zip(ours, theirs))
        check(f"{STEPS} steps: {key}", len(ours) == STEPS and off < limit,
              f"{theirs[0][key]:.6f} -> {theirs[-1][key]:.6f}, ours differs by {off:.1e}")
    moved = sum(a["counts"] != b["counts"] for a, b in zip(ours, theirs))
    check(f"{STEPS} steps: tokens per expert", moved == 0, f"{moved} steps differ")


if __name__ == "__main__":
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    main(Path(sys.argv[1]))
    finish()

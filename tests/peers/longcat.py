"""Training speed of transformers' LongcatFlash in PyTorch on the shape of configs/bench.yaml: AdamW, the same batch,
float32, all cores.  It computes less than our step: no load-balance loss, no z-loss, no bias controller.  One JSON
object, of the best of the ways tried."""

import json
import statistics
import sys
import time

import torch
import transformers
from transformers import LongcatFlashConfig, LongcatFlashForCausalLM

from longcat_step import step

MICRO_BATCHES, BATCH, LENGTH, STEPS, WARM_UP = 8, 2, 256, int(sys.argv[1]) if len(sys.argv) > 1 else 8, 2
SIZES = dict(vocab_size=8192, hidden_size=256, num_layers=4, num_attention_heads=4, q_lora_rank=128, kv_lora_rank=64,
             qk_nope_head_dim=48, qk_rope_head_dim=16, head_dim=16, v_head_dim=64, ffn_hidden_size=512,
             expert_ffn_hidden_size=128, n_routed_experts=16, zero_expert_num=8, moe_topk=6, routed_scaling_factor=2.5)


def speed(attention, fused):
    torch.manual_seed(1)
    model = LongcatFlashForCausalLM(LongcatFlashConfig(**SIZES, attn_implementation=attention, use_cache=False))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)
    tokens = torch.randint(0, 4096, (MICRO_BATCHES, BATCH, LENGTH + 1))
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step(model, optimizer, tokens)
        seconds.append(time.perf_counter() - start)
    return MICRO_BATCHES * BATCH * LENGTH / statistics.median(seconds[WARM_UP:])


found = {f"{attention}{', fused AdamW' if fused else ''}": speed(attention, fused)
         for attention in ("sdpa", "eager") for fused in (False, True)}
best = max(found, key=found.get)
print(json.dumps({"peer": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {best}",
                  "config": "bench.yaml", "threads": torch.get_num_threads(), "tokens_per_second": round(found[best], 1)}))

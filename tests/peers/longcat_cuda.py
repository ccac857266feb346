"""Training speed of transformers' LongcatFlash in PyTorch on one GPU on the shape of configs/proxy-768.yaml: weights,
gradients and moments in bf16, fused AdamW, random tokens.  It computes less than our step: no load-balance loss, no
z-loss, no bias controller, no float32 copy of the weights.  One JSON object, of the best of the ways tried:

    python3 longcat_cuda.py [STEPS=6] [MICRO_BATCHES=4] [SEQUENCES=2]
"""

import json
import statistics
import sys
import time

import torch
import transformers
from transformers import LongcatFlashConfig, LongcatFlashForCausalLM

from longcat_step import step

STEPS, MICRO_BATCHES, BATCH = (int(x) for x in (*sys.argv[1:], *("6", "4", "2")[len(sys.argv) - 1:]))
LENGTH, WARM_UP = 4096, 2
SIZES = dict(vocab_size=131072, hidden_size=768, num_layers=28, num_attention_heads=8, q_lora_rank=192, kv_lora_rank=64,
             qk_nope_head_dim=64, qk_rope_head_dim=32, head_dim=32, v_head_dim=64, ffn_hidden_size=1536,
             expert_ffn_hidden_size=256, n_routed_experts=64, zero_expert_num=32, moe_topk=12, routed_scaling_factor=6)


def speed(attention):
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LongcatFlashForCausalLM(LongcatFlashConfig(**SIZES, attn_implementation=attention, use_cache=False))
        tokens = torch.randint(0, SIZES["vocab_size"], (MICRO_BATCHES, BATCH, LENGTH + 1))
    model.train()
    with torch.no_grad():  # matrices that the constructor leaves as they are
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    seconds = []
    for _ in range(WARM_UP + STEPS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        loss = step(model, optimizer, tokens)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if not torch.isfinite(loss):
        raise RuntimeError("the loss is not finite")
    return MICRO_BATCHES * BATCH * LENGTH / statistics.median(seconds[WARM_UP:])


found = {}
for way in ("sdpa", "flash_attention_2"):
    try:
        found[way] = speed(way)
    except (ImportError, RuntimeError, ValueError) as e:
        print(f"{way}: {str(e).splitlines()[0][:200]}", file=sys.stderr)
    torch.cuda.empty_cache()
best = max(found, key=found.get)
print(json.dumps({"peer": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {best}, fused AdamW",
                  "config": "proxy-768.yaml", "device": torch.cuda.get_device_name(),
                  "peak_memory": torch.cuda.max_memory_allocated(), "tokens_per_second": round(found[best], 1)}))

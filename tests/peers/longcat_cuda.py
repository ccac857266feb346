"""Training speed of transformers' LongcatFlash in PyTorch on one GPU on the shape of configs/proxy-768.yaml: weights,
gradients and moments in bf16, fused AdamW, random tokens.  It computes less than our step: no load-balance loss, no
z-loss, no bias controller, no float32 copy of the weights.  transformers computes one expert after another, so it is
tried as it is and with all experts in one grouped product.  After each way that is tried one line of JSON, of the best:

    python3 longcat_cuda.py [STEPS=6] [MICRO_BATCHES=4] [SEQUENCES=2]
"""

import contextlib
import gc
import json
import statistics
import sys
import time

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LongcatFlashConfig, LongcatFlashForCausalLM
from transformers.models.longcat_flash import modeling_longcat_flash as theirs

from longcat_step import step

STEPS, MICRO_BATCHES, BATCH = (int(x) for x in (*sys.argv[1:], *("6", "4", "2")[len(sys.argv) - 1:]))
LENGTH, WARM_UP = 4096, 2
SIZES = dict(vocab_size=131072, hidden_size=768, num_layers=28, num_attention_heads=8, q_lora_rank=192, kv_lora_rank=64,
             qk_nope_head_dim=64, qk_rope_head_dim=32, head_dim=32, v_head_dim=64, ffn_hidden_size=1536,
             expert_ffn_hidden_size=256, n_routed_experts=64, zero_expert_num=32, moe_topk=12, routed_scaling_factor=6.0)


def grouped(self, x, index, weights):
    """LongcatFlashExperts.forward: rows sorted by expert; identity experts come last and give the token itself."""
    experts = self.num_routed_experts
    ends = torch.bincount(index.flatten(), minlength=self.total_experts)[:experts].cumsum(0).int()
    slots = index.flatten().argsort(stable=True)[:int(ends[-1])]
    rows = slots // index.shape[1]
    x_rows, gate_up = x.index_select(0, rows), self.gate_up_proj[:experts].transpose(1, 2)
    gate, up = torch._grouped_mm(x_rows, gate_up, offs=ends).chunk(2, dim=-1)
    y = torch._grouped_mm(self.act_fn(gate) * up, self.down_proj.transpose(1, 2), offs=ends)
    y = y * weights.flatten()[slots, None].to(y.dtype)
    return (x * (weights * (index >= experts)).sum(1, keepdim=True).to(x.dtype)).index_add(0, rows, y)


EXPERTS = getattr(theirs, "LongcatFlashExperts", None)  # since version 5
ONE_BY_ONE = EXPERTS and EXPERTS.forward


def speed(attention, experts, attends=None):
    if EXPERTS:
        EXPERTS.forward = experts or ONE_BY_ONE
    elif experts:
        raise RuntimeError("this version's experts do not lie in one matrix")
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
        with sdpa_kernel(attends) if attends else contextlib.nullcontext():
            loss = step(model, optimizer, tokens)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if not torch.isfinite(loss):
        raise RuntimeError("the loss is not finite")
    return MICRO_BATCHES * BATCH * LENGTH / statistics.median(seconds[WARM_UP:])


WAYS = {"cuDNN's attention, grouped experts": ("sdpa", grouped, SDPBackend.CUDNN_ATTENTION),
        "sdpa, grouped experts": ("sdpa", grouped), "sdpa": ("sdpa", None), "flash_attention_2": ("flash_attention_2", None)}
found = {}
for way, how in WAYS.items():
    try:
        found[way] = round(speed(*how), 1)
    except Exception as e:  # a library that is not here, another version's names, too little memory
        print(f"{way}: {(str(e) or type(e).__name__).splitlines()[0][:200]}", file=sys.stderr, flush=True)
    gc.collect()
    torch.cuda.empty_cache()
    if found:
        best = max(found, key=found.get)
        print(json.dumps({"peer": f"PyTorch {torch.__version__}, transformers {transformers.__version__}, {best}, fused AdamW",
                          "config": "proxy-768.yaml", "device": torch.cuda.get_device_name(), "ways": found,
                          "peak_memory": torch.cuda.max_memory_allocated(), "tokens_per_second": found[best]}), flush=True)
sys.exit(not found)

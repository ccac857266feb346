"""What longcat.py and longcat_cuda.py time: a training step, gradients of all micro-batches and an update."""

import torch


def step(model, optimizer, tokens):
    """tokens [micro-batches, sequences, length + 1]; returns the last micro-batch's loss."""
    optimizer.zero_grad(set_to_none=True)
    for part in tokens:
        logits = model(part[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
        (loss / len(tokens)).backward()
        del logits  # before the next ones are there
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss

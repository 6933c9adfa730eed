"""Muon for the matrices of the main branch, AdamW for embeddings, norms and the index branch.

Muon keeps a Nesterov momentum of each matrix and applies its orthogonal factor, found by five
Newton-Schulz steps on all matrices of one shape at a time.
"""

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices, dtype):
    """matrices [n, rows, columns] -> their nearest semi-orthogonal matrices, roughly."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                gradients = [p.grad for p in parameters]
                moments = []
                for parameter in parameters:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    moments.append(state["momentum"])
                torch._foreach_lerp_(moments, gradients, 1 - group["momentum"])
                updates = torch._foreach_lerp(gradients, moments, group["momentum"])
                half = parameters[0].is_cuda
                update = orthogonalise(
                    torch.stack(updates), torch.bfloat16 if half else torch.float32
                )
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(parameters, list(update.unbind(0)), alpha=-group["lr"] * scale)


def make_optimizers(model, rates):
    """[Muon, AdamW]; every group remembers its full rate as `peak`."""
    matrices, others, index = [], [], []
    for name, parameter in model.named_parameters():
        if ".indexer." in name:
            index.append(parameter)
        elif parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    muon = Muon(matrices, lr=rates["muon"])
    adam = torch.optim.AdamW(
        [{"params": others, "lr": rates["adam"]}, {"params": index, "lr": rates["index"]}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=True,
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]

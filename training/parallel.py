"""Data parallel runs: every process (rank) has the whole model and its own rows of each step; gradients are averaged.

Start them with torchrun: `torchrun --nproc-per-node 2 -m training --preset ...`. Rank r of a step draws rows
r * rows ... (r + 1) * rows - 1, so n ranks see n times the documents. What decides the course of a run (its clock) is
rank 0's, so that all take the same steps, and the weights stay equal to the bit.
"""

import os

import torch
from torch import distributed


class Ranks:
    """This process among those of the run; alone when it was not started by torchrun."""

    def __init__(self, device):
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.world > 1:
            if device == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        self.device = device

    @property
    def leads(self):
        return self.rank == 0

    def average(self, parameters):
        """Gradients become their mean over all ranks, in one exchange."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def agree(self, value):
        """Rank 0's value of a number, for all."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return shared.item()

    def leave(self):
        if self.world > 1:
            distributed.barrier()
            distributed.destroy_process_group()

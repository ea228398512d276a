"""The optimisers of a fit: Muon for the network's matrices, AdamW for everything else.

Why: docs/decisions/0008-fit.md. torch's own Muon takes single matrices only and rounds to bfloat16; half of the matrices
here are stacks, one for each tensor rank.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from al_leignn.shapes import Float

BETAS = (0.9, 0.99)
"""Decay of AdamW's running moments. Fits are short, so the second one forgets the start sooner than is usual."""

MOMENTUM = 0.95
"""Decay of Muon's running mean of the gradient."""

STEP_SIZE = 0.2
"""Root mean square element of Muon's step at learning rate 1: about that of AdamW, so that both share one learning rate."""

ITERATION = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that brings singular values near 1 in five rounds."""

STATE = ("momentum", "step", "exp_avg", "exp_avg_sq")
"""What the two keep for each parameter."""


class Muon(torch.optim.Optimizer):
    """Steps along the running mean gradient of each matrix with all its singular values set to about 1.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the step size and the decoupled
    weight decay of J. Liu et al., arXiv:2502.16982. A parameter with more than two dimensions is a stack of matrices.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no fit here needs its loss evaluated again by the optimiser
        """One step from the gradients the parameters hold."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                mean = state["momentum"]
                mean.lerp_(p.grad, 1 - MOMENTUM)
                direction = orthogonal(p.grad.lerp(mean, MOMENTUM))
                size = STEP_SIZE * math.sqrt(max(p.shape[-2:]))
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * size)


def orthogonal(matrices: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack rows columns"]:
    """The same singular vectors with singular values of 0.7 to 1.2, by Newton-Schulz iteration; zero stays zero."""
    a, b, c = ITERATION
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + torch.finfo(x.dtype).tiny)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def optimisers(network: nn.Module, rate: float, decay: float) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for what maps features to features; AdamW for embeddings, single rows and vectors.

    Weights of maps and embeddings decay; biases do not, they have no direction to overfit in.
    """
    maps, rows, vectors = [], [], []
    for name, p in network.named_parameters():
        if p.ndim < 2:
            vectors.append(p)
        elif min(p.shape[-2:]) == 1 or name.endswith("embedding"):
            rows.append(p)
        else:
            maps.append(p)
    rest = [{"params": rows, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return Muon(maps, rate, decay), torch.optim.AdamW(rest, lr=rate, betas=BETAS, fused=True)

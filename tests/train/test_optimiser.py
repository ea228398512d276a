"""Muon's steps, and which parameter is fitted by what."""

import numpy as np
import pytest
import torch
from torch import nn

from al_leignn.config import ModelConfig
from al_leignn.model.leignn import LEIGNN
from al_leignn.train.optimiser import Muon, optimisers, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (12, 5), (3, 6, 9)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = np.linalg.svd(matrices.numpy(), full_matrices=False)
    found = u.swapaxes(-1, -2) @ orthogonal(matrices).numpy() @ v.swapaxes(-1, -2)
    values = np.diagonal(found, axis1=-2, axis2=-1)
    np.testing.assert_allclose(found, values[..., None] * np.eye(s.shape[-1]), atol=1e-9)
    large = s > 0.05 * s.max()
    assert ((values > 0.6) & (values < 1.3))[large].all()


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_a_stack_moves_like_its_matrices() -> None:
    generator = torch.Generator().manual_seed(2)
    start, gradients = torch.randn(3, 4, 6, generator=generator), torch.randn(5, 3, 4, 6, generator=generator)
    stack = nn.Parameter(start.clone())
    singles = [nn.Parameter(matrix.clone()) for matrix in start]
    together, apart = Muon([stack], 0.1, 0.01), Muon(singles, 0.1, 0.01)
    for gradient in gradients:
        stack.grad = gradient.clone()
        for single, own in zip(singles, gradient, strict=True):
            single.grad = own.clone()
        together.step()
        apart.step()
    torch.testing.assert_close(stack.detach(), torch.stack([single.detach() for single in singles]))


def test_muon_finds_the_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(3)
    x, wanted = torch.randn(40, 6, generator=generator), torch.randn(6, 4, generator=generator)
    found = nn.Parameter(torch.zeros(6, 4))
    optimiser = Muon([found], 0.1, 0.0)
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.5 * (1 - step / 400)
        optimiser.zero_grad()
        (x @ found - x @ wanted).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(found.detach(), wanted, atol=0.01, rtol=0)


@pytest.mark.parametrize("preset", ["local", "paper"])
def test_every_parameter_has_one_optimiser_and_biases_do_not_decay(preset: str) -> None:
    config = ModelConfig.model_validate({"preset": preset, "features": 8})
    model = LEIGNN(config, [8, 12], e0s={8: 0.0, 12: 0.0}, energy_scale=1.0, mean_neighbours=9.0, seed=0)
    muon, adam = optimisers(model, 1e-3, 0.1)
    groups = [*muon.param_groups, *adam.param_groups]
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, model.parameters()))
    assert {p.ndim for group in groups if group["weight_decay"] == 0 for p in group["params"]} == {1}
    assert all(min(p.shape[-2:]) > 1 for p in muon.param_groups[0]["params"])
    embeddings = [p for name, p in model.named_parameters() if name.endswith("embedding")]
    assert embeddings
    assert not {id(p) for p in embeddings} & {id(p) for p in muon.param_groups[0]["params"]}

"""The pieces: what they are by definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from al_leignn.model.layers import bessel, envelope, gaussians, harmonics, quadratic_products, traceless_basis

PAIRS = np.triu_indices(8)


def test_the_envelope_and_two_derivatives_vanish_at_the_cutoff() -> None:
    d = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    u = envelope(d)
    (slope,) = torch.autograd.grad(u.sum(), d, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), d)
    u, slope = u.detach(), slope.detach()
    assert float(u[0]) == 1.0
    assert float(u[-1]) == 0.0
    np.testing.assert_allclose([float(slope[-1]), float(curvature[-1])], 0.0, atol=1e-12)
    assert (u.diff() <= 0).all()


@pytest.mark.parametrize("functions", [bessel, gaussians])
def test_radial_functions_and_their_slopes_are_zero_from_the_cutoff_on(functions: object) -> None:
    d = torch.tensor([[0.1, 0.999999, 1.0, 1.3, 200.0]], dtype=torch.float64, requires_grad=True)
    values = functions(d, 6)  # type: ignore[operator]
    (slope,) = torch.autograd.grad(values.sum(), d)
    values = values.detach()
    assert values.shape == (1, 6, 5)
    assert float(values[:, :, 2:].abs().max()) == 0.0
    assert float(values[:, :, 1].abs().max()) < 1e-12
    assert float(slope[:, 2:].abs().max()) < 1e-28


def test_harmonics_have_unit_mean_square_over_the_sphere() -> None:
    u = torch.randn(1, 3, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = harmonics(u / u.norm(dim=1, keepdim=True))[0]
    np.testing.assert_allclose(y @ y.T / u.shape[2], np.eye(9), atol=0.02)


def _matrix(t: Float[np.ndarray, "5"]) -> Float[np.ndarray, "3 3"]:
    return np.asarray(np.einsum("c,cij->ij", t, traceless_basis()))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_products_are_those_of_vectors_and_matrices(seed: int) -> None:
    q = np.random.default_rng(seed).normal(size=8)
    v, t = q[:3], _matrix(q[3:])
    products = quadratic_products() @ (q[PAIRS[0]] * q[PAIRS[1]])

    def parallel(a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"], factor: float) -> None:
        np.testing.assert_allclose(a, b * factor, atol=1e-12)

    parallel(products[:1], np.array([v @ v]), 3**-0.5)
    parallel(products[1:2], np.array([np.trace(t @ t)]), 5**-0.5)
    full = quadratic_products()
    scale = [full[r].max() for r in range(15)]
    assert min(scale) > 0
    parallel(products[2:5], t @ v, float(products[2] / (t @ v)[0]))
    square = t @ t - np.trace(t @ t) / 3 * np.eye(3)
    outer = np.outer(v, v) - v @ v / 3 * np.eye(3)
    for got, expected in ((_matrix(products[5:10]), square), (_matrix(products[10:]), outer)):
        parallel(got, expected, float(got[0, 1] / expected[0, 1]))

"""The pieces: what they are by definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from al_leignn.model.layers import (
    bessel,
    envelope,
    gaussians,
    harmonics,
    quadratic_products,
    traceless_cubes,
    traceless_matrices,
)

PAIRS = np.triu_indices(15)


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
    np.testing.assert_allclose(y @ y.T / u.shape[2], np.eye(16), atol=0.02)


def test_bases_are_orthonormal_traceless_and_symmetric() -> None:
    for basis in (traceless_matrices(), traceless_cubes()):
        flat = basis.reshape(len(basis), -1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(len(basis)), atol=1e-12)
        np.testing.assert_allclose(np.trace(basis, axis1=1, axis2=2), 0.0, atol=1e-12)
        np.testing.assert_allclose(basis, basis.swapaxes(-1, -2))
        np.testing.assert_allclose(basis, basis.swapaxes(1, 2))


def test_harmonics_are_the_traceless_products_of_a_direction() -> None:
    u = np.array([2.0, -1.0, 2.0]) / 3
    y = harmonics(torch.tensor(u).view(1, 3, 1))[0, :, 0].numpy()
    square = np.einsum("i,j->ij", u, u)
    np.testing.assert_allclose(y[1:4], 3**0.5 * u)
    np.testing.assert_allclose(_matrix(y[4:9]), 7.5**0.5 * (square - np.eye(3) / 3), atol=1e-12)
    traces = sum(np.einsum(f"i,jk->{order}", u, np.eye(3)) for order in ("ijk", "jik", "jki")) / 5
    np.testing.assert_allclose(_cube(y[9:]), 17.5**0.5 * (np.einsum("ij,k->ijk", square, u) - traces), atol=1e-12)


def _matrix(t: Float[np.ndarray, "5"]) -> Float[np.ndarray, "3 3"]:
    return np.asarray(np.einsum("c,cij->ij", t, traceless_matrices()))


def _cube(o: Float[np.ndarray, "7"]) -> Float[np.ndarray, "3 3 3"]:
    return np.asarray(np.einsum("c,cijk->ijk", o, traceless_cubes()))


def _traceless(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    return np.asarray(matrix - np.trace(matrix) / 3 * np.eye(3))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_products_are_those_of_vectors_matrices_and_tensors(seed: int) -> None:
    q = np.random.default_rng(seed).normal(size=15)
    v, t, o = q[:3], _matrix(q[3:8]), _cube(q[8:])
    products = quadratic_products() @ (q[PAIRS[0]] * q[PAIRS[1]])

    def same(got: Float[np.ndarray, "*shape"], expected: Float[np.ndarray, "*shape"], square_norm: float) -> None:
        """Up to the factor that gives rows of the table unit norm."""
        np.testing.assert_allclose(got, expected / square_norm**0.5, atol=1e-12)

    same(products[:3], np.array([v @ v / 3**0.5, (t * t).sum() / 5**0.5, (o * o).sum() / 7**0.5]), 1)
    same(products[3:6], t @ v, 5 / 3)
    same(products[6:9], np.einsum("ijk,jk->i", o, t), 7 / 3)
    same(_matrix(products[9:14]), _traceless(t @ t), 7 / 12)
    same(_matrix(products[14:19]), _traceless(np.einsum("ikl,jkl->ij", o, o)), 14 / 25)
    same(_matrix(products[19:24]), _traceless(np.outer(v, v)), 1)
    same(_matrix(products[24:]), o @ v, 7 / 5)

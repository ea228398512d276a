"""Pieces both networks are made of: radial functions, harmonics, products of Cartesian tensors, two-layer perceptrons.

Equivariant features are stacked as eight components: a vector (x y z) and a traceless symmetric matrix in the
orthonormal basis of `traceless_basis`, so that one operation serves both ranks.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

RANKS = (0, 1, 1, 1, 2, 2, 2, 2, 2)
"""Tensor rank of each of the nine components scalar, vector, matrix."""

TENSOR_RANKS = (0, 0, 0, 1, 1, 1, 1, 1)
"""Which of vector (0) and matrix (1) each of the eight tensor components belongs to."""


def weight(generator: torch.Generator, *shape: int, variance: float) -> nn.Parameter:
    """Normal random parameter of the given variance."""
    return nn.Parameter(torch.randn(shape, generator=generator) * math.sqrt(variance))


@cache
def constant(build: Callable[[], Float[np.ndarray, "..."]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Constants that `build` gives in float64, as a tensor; made once for each precision and device."""
    with torch.inference_mode(False):  # a tensor kept from inference mode could not be used in training
        return torch.as_tensor(build(), dtype=dtype, device=device)


@cache
def index(values: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Indices as a tensor; made once for each device."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


class Perceptron(nn.Module):
    """Two dense layers with SiLU between them; keeps unit variance at the start.

    The published activation is SiLU(x)/0.6; the factor sits in the second layer's initial weights here.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator, *, scale: float = 1.0) -> None:
        super().__init__()
        self.weight_1 = weight(generator, hidden, inputs, variance=1 / inputs)
        self.bias_1 = nn.Parameter(torch.zeros(hidden))
        self.weight_2 = weight(generator, outputs, hidden, variance=(scale / 0.6) ** 2 / hidden)
        self.bias_2 = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        hidden = functional.silu(functional.linear(x, self.weight_1, self.bias_1))
        return functional.linear(hidden, self.weight_2, self.bias_2)


def envelope(d: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Switch from 1 to 0 on 0 <= d <= 1; value, slope and curvature vanish at d = 1.

    u(d) = 1 - 21 d^5 + 35 d^6 - 15 d^7 (Gasteiger et al., arXiv:2003.03123, eq. 8 with p = 5).
    """
    square = d * d
    return 1 + square * square * d * (d * (35 - 15 * d) - 21)


def bessel(d: Float[Tensor, "atoms width"], n: int) -> Float[Tensor, "atoms {n} width"]:
    """u(d) sin(k pi d)/d for k = 1..n and d = r/r_c in (0, 1]; zero beyond."""
    d = d.clamp(max=1.0).unsqueeze(1)
    k = torch.arange(1, n + 1, dtype=d.dtype, device=d.device).view(1, n, 1) * math.pi
    return torch.sin(k * d) * (envelope(d) / d)


def gaussians(d: Float[Tensor, "atoms width"], n: int) -> Float[Tensor, "atoms {n} width"]:
    """u(d) times n Gaussians centred evenly on [0, 1], as wide as their spacing; zero beyond d = 1."""
    d = d.clamp(max=1.0).unsqueeze(1)
    spacing = 1 / max(n - 1, 1)
    centres = torch.arange(n, dtype=d.dtype, device=d.device).view(1, n, 1) * spacing
    return envelope(d) * torch.exp(-0.5 * ((d - centres) / spacing) ** 2)


def traceless_basis() -> Float[np.ndarray, "5 3 3"]:
    """Orthonormal basis of the traceless symmetric 3x3 matrices: xy, yz, xz, x²-y², 2z²-x²-y²."""
    basis = np.zeros((5, 3, 3))
    for row, (a, b) in enumerate([(0, 1), (1, 2), (0, 2)]):
        basis[row, a, b] = basis[row, b, a] = math.sqrt(0.5)
    basis[3] = np.diag([1, -1, 0]) / math.sqrt(2)
    basis[4] = np.diag([-1, -1, 2]) / math.sqrt(6)
    return basis


SQUARES = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
"""Index pairs of the six products of a direction with itself."""


def _square_to_matrix() -> Float[np.ndarray, "5 6"]:
    basis = traceless_basis()
    a, b = np.array(SQUARES)
    # Off-diagonal products occur twice; sqrt(15/2) gives each component unit mean square over the sphere.
    return basis[:, a, b] * np.where(a == b, 1.0, 2.0) * math.sqrt(7.5)


def harmonics(u: Float[Tensor, "atoms 3 width"]) -> Float[Tensor, "atoms 9 width"]:
    """1, u and the traceless part of u⊗u for unit vectors u, each component with unit mean square over the sphere."""
    a, b = (index(values, u.device) for values in SQUARES)
    matrices = constant(_square_to_matrix, u.dtype, u.device) @ (u.index_select(1, a) * u.index_select(1, b))
    return torch.cat([torch.ones_like(u[:, :1]), u * math.sqrt(3), matrices], dim=1)


PAIRS = tuple(tuple(int(i) for i in side) for side in np.triu_indices(8))
"""Index pairs of the 36 distinct products of the eight components of a vector v and a matrix t."""


def quadratic_products() -> Float[np.ndarray, "15 36"]:
    """Equivariant products of (v, t) with itself, as a matrix on the 36 products of components.

    Rows: |v|² (1), |t|² (1), t·v (3), traceless t·t (5), traceless v⊗v (5). Each row has unit norm over ordered
    pairs, so that unit-variance components give results of order one.
    """
    basis = traceless_basis()
    full = np.zeros((15, 8, 8))
    full[0, :3, :3] = np.eye(3)
    full[1, 3:, 3:] = np.eye(5)
    full[2:5, 3:, :3] = basis.transpose(1, 0, 2)
    full[5:10, 3:, 3:] = np.einsum("cij,ajk,bki->cab", basis, basis, basis)
    full[10:, :3, :3] = basis
    full /= np.linalg.norm(full, axis=(1, 2), keepdims=True)
    a, b = np.array(PAIRS)
    both = full + full.transpose(0, 2, 1)
    return np.where(a == b, full[:, a, b], both[:, a, b])


def rank_means() -> Float[np.ndarray, "2 8"]:
    """Mean over the vector's and over the matrix's components."""
    means = np.zeros((2, 8))
    means[0, :3] = 1 / 3
    means[1, 3:] = 1 / 5
    return means


def rank_sums() -> Float[np.ndarray, "2 8"]:
    """Sum over the vector's and over the matrix's components, with unit norm."""
    sums = np.zeros((2, 8))
    sums[0, :3] = 1 / math.sqrt(3)
    sums[1, 3:] = 1 / math.sqrt(5)
    return sums

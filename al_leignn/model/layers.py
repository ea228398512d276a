"""Pieces both networks are made of: radial functions, harmonics, products of Cartesian tensors, two-layer perceptrons.

Equivariant features are stacked as fifteen components, so that one operation serves all ranks: a vector (x y z), a traceless
symmetric matrix in the orthonormal basis of `traceless_matrices`, and a traceless symmetric tensor of rank 3 in that of
`traceless_cubes`.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from al_leignn.shapes import Float, Int

RANKS = (0, *3 * (1,), *5 * (2,), *7 * (3,))
"""Tensor rank of each of the sixteen components scalar, vector, matrix, rank-3 tensor."""

TENSOR_RANKS = (*3 * (0,), *5 * (1,), *7 * (2,))
"""Which of vector (0), matrix (1) and rank-3 tensor (2) each of the fifteen tensor components belongs to."""

VECTOR, MATRIX, CUBE = slice(0, 3), slice(3, 8), slice(8, 15)
"""Their places among the fifteen."""


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


def smoothness(radial: int) -> Float[Tensor, "4 {radial}"]:
    """Factor on the filter weights of each rank l and radial function k: 1/(k max(1, l)), of unit mean square over k for l = 0.

    A step of the optimiser, and the decay of weights, then bear less on functions that vary fast along or around a bond: of two
    potentials that fit the data equally well, the smoother one is found.
    """
    by_radial = 1 / np.arange(1, radial + 1)
    by_rank = 1 / np.maximum(1, np.arange(4))
    return torch.as_tensor(np.outer(by_rank, by_radial / np.sqrt(np.mean(by_radial**2))), dtype=torch.float32)


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


def traceless_matrices() -> Float[np.ndarray, "5 3 3"]:
    """Orthonormal basis of the traceless symmetric 3x3 matrices: xy, yz, xz, x²-y², 2z²-x²-y²."""
    return _symmetric(({"xy": 1}, {"yz": 1}, {"xz": 1}, {"xx": 1, "yy": -1}, {"zz": 2, "xx": -1, "yy": -1}))


def traceless_cubes() -> Float[np.ndarray, "7 3 3 3"]:
    """Orthonormal basis of the traceless symmetric tensors of rank 3.

    xyz, z(x²-y²), x(x²-3y²), y(3x²-y²), z(2z²-3x²-3y²), x(4z²-x²-y²), y(4z²-x²-y²).
    """
    return _symmetric(
        (
            {"xyz": 1},
            {"xxz": 1, "yyz": -1},
            {"xxx": 1, "xyy": -3},
            {"xxy": 3, "yyy": -1},
            {"zzz": 2, "xxz": -3, "yyz": -3},
            {"xzz": 4, "xxx": -1, "xyy": -1},
            {"yzz": 4, "xxy": -1, "yyy": -1},
        )
    )


def _symmetric(polynomials: Sequence[Mapping[str, float]]) -> Float[np.ndarray, "..."]:
    """Symmetric tensors of unit norm with these homogeneous polynomials."""
    degree = len(next(iter(polynomials[0])))
    tensors = np.zeros((len(polynomials), *degree * (3,)))
    for tensor, polynomial in zip(tensors, polynomials, strict=True):
        for term, coefficient in polynomial.items():
            orders = list(itertools.permutations("xyz".index(letter) for letter in term))
            for order in orders:
                tensor[order] += coefficient / len(orders)
        tensor /= np.linalg.norm(tensor)
    return tensors


SQUARES, CUBES = (tuple(zip(*itertools.combinations_with_replacement(range(3), n), strict=True)) for n in (2, 3))
"""Indices of the factors of the six products of two, and the ten products of three, components of a direction."""


def _square_to_matrix() -> Float[np.ndarray, "5 6"]:
    basis, (a, b) = traceless_matrices(), np.array(SQUARES)
    # Products occur in several orders; sqrt(15/2) gives each component unit mean square over the sphere.
    return np.asarray(basis[:, a, b] * _orders(SQUARES) * math.sqrt(7.5))


def _cube_to_tensor() -> Float[np.ndarray, "7 10"]:
    basis, (a, b, c) = traceless_cubes(), np.array(CUBES)
    return np.asarray(basis[:, a, b, c] * _orders(CUBES) * math.sqrt(17.5))  # unit mean square


def _orders(factors: tuple[tuple[int, ...], ...]) -> Float[np.ndarray, " products"]:
    """In how many orders the factors of each product can be written."""
    return np.array([len(set(itertools.permutations(term))) for term in zip(*factors, strict=True)], dtype=float)


def harmonics(u: Float[Tensor, "atoms 3 width"]) -> Float[Tensor, "atoms 16 width"]:
    """1, u and the traceless parts of u⊗u and u⊗u⊗u for unit vectors u, each component with unit mean square over the sphere."""
    squares, cubes = (
        math.prod((u.index_select(1, index(factor, u.device)) for factor in factors), start=1.0) for factors in (SQUARES, CUBES)
    )
    matrices = constant(_square_to_matrix, u.dtype, u.device) @ squares
    tensors = constant(_cube_to_tensor, u.dtype, u.device) @ cubes
    return torch.cat([torch.ones_like(u[:, :1]), u * math.sqrt(3), matrices, tensors], dim=1)


PAIRS = tuple(tuple(int(i) for i in side) for side in np.triu_indices(15))
"""Index pairs of the 120 distinct products of the components of a vector v, a matrix t and a rank-3 tensor o."""


def quadratic_products() -> Float[np.ndarray, "29 120"]:
    """Equivariant products of (v, t, o) with itself, as a matrix on the 120 products of components.

    Rows: |v|², |t|², |o|² (1 each), t·v and o:t (3 each), the traceless parts of t·t and o:o, that of v⊗v, and o·v (5 each).
    Each row has unit norm over ordered pairs, so that unit-variance components give results of order one.
    """
    t, o = traceless_matrices(), traceless_cubes()
    blocks = (
        (VECTOR, VECTOR, np.eye(3)[None]),
        (MATRIX, MATRIX, np.eye(5)[None]),
        (CUBE, CUBE, np.eye(7)[None]),
        (MATRIX, VECTOR, np.einsum("aij->iaj", t)),
        (CUBE, MATRIX, np.einsum("aijk,bjk->iab", o, t)),
        (MATRIX, MATRIX, np.einsum("cij,ajk,bki->cab", t, t, t)),
        (CUBE, CUBE, np.einsum("cij,aikl,bjkl->cab", t, o, o)),
        (VECTOR, VECTOR, t),
        (CUBE, VECTOR, np.einsum("cij,aijk->cak", t, o)),
    )
    full = np.zeros((29, 15, 15))
    row = 0
    for left, right, values in blocks:
        full[row : row + len(values), left, right] = values
        row += len(values)
    full /= np.linalg.norm(full, axis=(1, 2), keepdims=True)
    a, b = np.array(PAIRS)
    both = full + full.transpose(0, 2, 1)
    return np.where(a == b, full[:, a, b], both[:, a, b])


def rank_means() -> Float[np.ndarray, "3 15"]:
    """Mean over the components of each rank."""
    means = np.zeros((3, 15))
    for row, part in zip(means, (VECTOR, MATRIX, CUBE), strict=True):
        row[part] = 1 / (part.stop - part.start)
    return means


def sums_of_products() -> Float[np.ndarray, "4 16"]:
    """Sums over the components of two vectors and two matrices, with unit norm."""
    sums = np.zeros((4, 16))
    ends = (0, 3, 6, 11, 16)
    for row, begin, end in zip(sums, ends, ends[1:], strict=False):
        row[begin:end] = 1 / math.sqrt(end - begin)
    return sums

"""The network of preset `local`: scalars, vectors, matrices and rank-3 tensors on atoms, strictly local, conservative.

docs/model.md has the equations. All work that grows with the number of edges is in matrix products between the
basis of an atom's edges (harmonics times radial functions) and its neighbours' features; filters, products of
tensors and perceptrons act on atoms.

Tensors are multiplied with gates and with one another, layer after layer. Undamped, an atom in surroundings unlike any
in the training set would meet powers of powers; every such product is therefore damped where it is large.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from al_leignn.config import ModelConfig
from al_leignn.model.graph import Graph
from al_leignn.model.layers import (
    CUBE,
    MATRIX,
    PAIRS,
    RANKS,
    TENSOR_RANKS,
    VECTOR,
    Perceptron,
    bessel,
    constant,
    harmonics,
    index,
    quadratic_products,
    rank_means,
    smoothness,
    sums_of_products,
    weight,
)
from al_leignn.shapes import Float, Int


class LocalNetwork(nn.Module):
    """Per-atom energies from species and edge vectors."""

    def __init__(self, config: ModelConfig, n_species: int, mean_neighbours: float, generator: torch.Generator) -> None:
        super().__init__()
        width = config.features
        self.cutoff = config.cutoff
        self.radial = config.radial
        self.embedding = weight(generator, n_species, width, variance=1.0)
        self.first = FirstMessage(config, n_species, mean_neighbours, generator)
        self.updates = nn.ModuleList(Update(width, generator) for _ in range(config.layers - 1))
        self.messages = nn.ModuleList(Message(config, mean_neighbours, generator) for _ in range(config.layers - 1))
        self.last = ScalarUpdate(width, generator)
        self.readout = Perceptron(width, width, 1, generator, scale=0.1)

    def basis(
        self,
        vectors: Float[Tensor, "atoms width 3"],
        lengths: Float[Tensor, "atoms width"],
        distances: Float[Tensor, "atoms width"],
    ) -> tuple[Tensor, ...]:
        """What the network needs of the edges, free of parameters, so members of a committee can share it.

        `distances` are what radial functions see: the lengths, levelled off where atoms are pressed together.
        """
        radial = bessel(distances / self.cutoff, self.radial)
        angular = harmonics(vectors.transpose(1, 2) / lengths.unsqueeze(1))
        return radial, (angular.unsqueeze(2) * radial.unsqueeze(1)).flatten(1, 2)

    def forward(
        self, graph: Graph, neighbours: Int[Tensor, "atoms width"], basis: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, " atoms"], None]:
        """Per-atom energies; no forces of their own."""
        x = self.embedding.index_select(0, graph.species)
        scalars, y = self.first(graph.species[neighbours], basis)
        x = (x + scalars) * math.sqrt(0.5)
        for update, message in zip(self.updates, self.messages, strict=True):
            x, y = update(x, y)
            scalars, tensors = message(x, y, neighbours, basis)
            x, y = (x + scalars) * math.sqrt(0.5), y + tensors
        return self.readout(self.last(x, y)).squeeze(1), None


class FirstMessage(nn.Module):
    """Message of the first layer, where neighbours are nothing but their species.

    P(x_j) depends on the species alone there, so filter times P(x_j) is one table over radial function and species;
    summing the basis over the neighbours of each species comes first.
    """

    smooth: Tensor

    def __init__(self, config: ModelConfig, n_species: int, mean_neighbours: float, generator: torch.Generator) -> None:
        super().__init__()
        self.n_species = n_species
        self.register_buffer("smooth", smoothness(config.radial), persistent=False)
        self.weight = weight(
            generator, 4, config.radial * n_species, config.features, variance=1 / (config.radial * mean_neighbours)
        )

    def filter(self) -> Float[Tensor, "4 radial_species features"]:
        """What multiplies the sums of the basis over each species, by rank."""
        smooth = self.smooth[:, :, None, None]
        return (self.weight.view(4, smooth.shape[1], self.n_species, -1) * smooth).view(self.weight.shape)

    def forward(
        self, species: Int[Tensor, "atoms width"], basis: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "15 atoms features"]]:
        one_hot = torch.eye(self.n_species, dtype=self.weight.dtype, device=species.device).index_select(0, species.reshape(-1))
        sums = basis[1] @ one_hot.view(*species.shape, self.n_species)
        sums = sums.view(species.shape[0], 16, -1).transpose(0, 1)
        message = sums @ self.filter().index_select(0, index(RANKS, species.device))
        scalars, tensors = message.split((1, 15))
        return scalars.squeeze(0), tensors


class Message(nn.Module):
    """Message of a later layer: harmonics times the neighbour's scalars, and the neighbour's own vectors and matrices."""

    smooth: Tensor

    def __init__(self, config: ModelConfig, mean_neighbours: float, generator: torch.Generator) -> None:
        super().__init__()
        width = config.features
        self.source = Perceptron(width, width, 3 * width, generator)
        variance = 1 / (config.radial * mean_neighbours)
        self.register_buffer("smooth", smoothness(config.radial), persistent=False)
        self.weight_scalar = weight(generator, 4, config.radial, width, variance=variance)
        self.weight_tensor = weight(generator, 2, config.radial, width, variance=variance)

    def filters(self) -> tuple[Float[Tensor, "4 radial features"], Float[Tensor, "2 radial features"]]:
        """What multiplies the sums of the basis with neighbours' scalars, by rank, and with their vectors and matrices."""
        smooth = self.smooth.unsqueeze(2)
        return self.weight_scalar * smooth, self.weight_tensor * smooth[0]

    def forward(
        self,
        x: Float[Tensor, "atoms features"],
        y: Float[Tensor, "15 atoms features"],
        neighbours: Int[Tensor, "atoms width"],
        basis: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "15 atoms features"]]:
        radial, harmonic = basis
        n_atoms, width = x.shape
        ranks, carried_ranks = index(RANKS, x.device), index(TENSOR_RANKS[:8], x.device)
        filter_scalar, filter_tensor = self.filters()
        flat = neighbours.reshape(-1)
        scalars, gates = self.source(x).split((width, 2 * width), dim=1)
        own = y[:8].transpose(0, 1) * damped_gates(gates).view(n_atoms, 2, width).index_select(1, carried_ranks)

        sources = scalars.index_select(0, flat).view(*neighbours.shape, width)
        sums = (harmonic @ sources).view(n_atoms, 16, -1, width)
        message = (sums * filter_scalar.index_select(0, ranks)).sum(2)

        sources = own.reshape(n_atoms, -1).index_select(0, flat).view(*neighbours.shape, 8 * width)
        sums = (radial @ sources).view(n_atoms, -1, 8, width)
        carried = (sums * filter_tensor.transpose(0, 1).index_select(1, carried_ranks)).sum(1)

        scalars, low, cubes = message.split((1, 8, 7), dim=1)
        return scalars.squeeze(1), torch.cat([low + carried, cubes], dim=1).transpose(0, 1)


def damped(y: Float[Tensor, "15 atoms features"]) -> tuple[Tensor, Tensor]:
    """Tensors shortened by (1 + mean square component)^(-1/4), and these factors."""
    size = (constant(rank_means, y.dtype, y.device) @ y.square().flatten(1)).view(3, *y.shape[1:])
    factors = (1 + size).rsqrt().sqrt().index_select(0, index(TENSOR_RANKS, y.device))
    return y * factors, factors


def damped_gates(gates: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Grow like a square root where they are large."""
    return gates * (1 + gates * gates).rsqrt().sqrt()


def products(q: Float[Tensor, "15 atoms features"]) -> tuple[Tensor, Tensor]:
    """Products of an atom's own vector v, matrix t and rank-3 tensor o, none of which grows faster than its factors.

    Returns
    -------
    invariants
        |v|², |t|², |o|², v·t·v, v·(o:t), tr(t t t), t:(o:o); shape (7, atoms, features).
    tensors
        t·v, o:t (3 components each) and the traceless parts of t·t, o:o, v⊗v, and o·v (5 each); shape (26, atoms, features).
    """
    shape = q.shape[1:]
    q, factors = damped(q)
    a, b = (index(side, q.device) for side in PAIRS)
    pairs = (q.index_select(0, a) * q.index_select(0, b)).flatten(1)
    squares, tensors = (constant(quadratic_products, q.dtype, q.device) @ pairs).view(29, *shape).split((3, 26))
    partners = (q * factors).index_select(0, index(_PARTNERS, q.device))
    cubic = constant(sums_of_products, q.dtype, q.device) @ (partners * tensors[:16]).flatten(1)
    return torch.cat([squares, cubic.view(4, *shape)]), tensors


_PARTNERS = (0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7)
"""Components of (v, t) that are multiplied with t·v, o:t, t·t and o:o to give invariants of third order."""


class Update(nn.Module):
    """Node update: scalars and tensors of an atom exchange what products of its tensors say."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix_q = weight(generator, 3, width, width, variance=1 / width)
        self.mix_p = weight(generator, 3, width, width, variance=1 / width)
        self.gates = Perceptron(8 * width, width, 11 * width, generator)

    def forward(
        self, x: Float[Tensor, "atoms features"], y: Float[Tensor, "15 atoms features"]
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "15 atoms features"]]:
        n_atoms, width = x.shape
        ranks = index(TENSOR_RANKS, x.device)
        short, _ = damped(y)
        p = short @ self.mix_p.index_select(0, ranks)
        invariants, tensors = products(short @ self.mix_q.index_select(0, ranks))
        gates = self.gates(torch.cat([x.unsqueeze(0), invariants]).transpose(0, 1).reshape(n_atoms, -1))
        add, scale, gates = gates.split((width, width, 9 * width), dim=1)
        gates = damped_gates(gates).view(n_atoms, 9, width).transpose(0, 1)
        terms = torch.cat([p, tensors]) * gates.index_select(0, index(_GATE_OF_TERM, x.device))
        change = (constant(_term_sums, x.dtype, x.device) @ terms.flatten(1)).view(15, n_atoms, width)
        return _gated(x, add, scale), y + change


_SIZES = (3, 5, 7, 3, 3, 5, 5, 5, 5)
"""Components of each term of an update: p (vector, matrix, rank 3), t·v, o:t, t·t, o:o, v⊗v, o·v."""

_GATE_OF_TERM = tuple(gate for gate, size in enumerate(_SIZES) for _ in range(size))


def _term_sums() -> Float[np.ndarray, "15 41"]:
    """Adds the gated terms up to one tensor of each rank."""
    parts = {3: VECTOR, 5: MATRIX, 7: CUBE}
    return np.concatenate([np.eye(15)[:, parts[size]] for size in _SIZES], axis=1)


class ScalarUpdate(nn.Module):
    """Node update of the last layer, of which only scalars are read."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix_q = weight(generator, 3, width, width, variance=1 / width)
        self.gates = Perceptron(8 * width, width, 2 * width, generator)

    def forward(
        self, x: Float[Tensor, "atoms features"], y: Float[Tensor, "15 atoms features"]
    ) -> Float[Tensor, "atoms features"]:
        ranks = index(TENSOR_RANKS, x.device)
        invariants, _ = products(y @ self.mix_q.index_select(0, ranks))
        gates = self.gates(torch.cat([x.unsqueeze(0), invariants]).transpose(0, 1).reshape(x.shape[0], -1))
        add, scale = gates.chunk(2, dim=1)
        return _gated(x, add, scale)


def _gated(x: Tensor, add: Tensor, scale: Tensor) -> Tensor:
    return x + add * math.sqrt(0.5) + x * torch.tanh(scale)

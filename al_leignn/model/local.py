"""The network of preset `local`: scalars, vectors and traceless matrices on atoms, strictly local, conservative.

docs/model.md has the equations. All work that grows with the number of edges is in matrix products between the
basis of an atom's edges (harmonics times radial functions) and its neighbours' features; filters, products of
tensors and perceptrons act on atoms.

Tensors are multiplied with gates and with one another, layer after layer. Undamped, an atom in surroundings unlike any
in the training set would meet powers of powers; every such product is therefore damped where it is large.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from al_leignn.config import ModelConfig
from al_leignn.model.graph import Graph
from al_leignn.model.layers import (
    PAIRS,
    RANKS,
    TENSOR_RANKS,
    Perceptron,
    bessel,
    constant,
    harmonics,
    index,
    quadratic_products,
    rank_means,
    rank_sums,
    weight,
)


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

    def __init__(self, config: ModelConfig, n_species: int, mean_neighbours: float, generator: torch.Generator) -> None:
        super().__init__()
        self.n_species = n_species
        self.filter = weight(
            generator, 3, config.radial * n_species, config.features, variance=1 / (config.radial * mean_neighbours)
        )

    def forward(
        self, species: Int[Tensor, "atoms width"], basis: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "8 atoms features"]]:
        one_hot = torch.eye(self.n_species, dtype=self.filter.dtype, device=species.device).index_select(0, species.reshape(-1))
        sums = basis[1] @ one_hot.view(*species.shape, self.n_species)
        sums = sums.view(species.shape[0], 9, -1).transpose(0, 1)
        message = sums @ self.filter.index_select(0, index(RANKS, species.device))
        scalars, tensors = message.split((1, 8))
        return scalars.squeeze(0), tensors


class Message(nn.Module):
    """Message of a later layer: harmonics times the neighbour's scalars, and the neighbour's own tensors."""

    def __init__(self, config: ModelConfig, mean_neighbours: float, generator: torch.Generator) -> None:
        super().__init__()
        width = config.features
        self.source = Perceptron(width, width, 3 * width, generator)
        variance = 1 / (config.radial * mean_neighbours)
        self.filter_scalar = weight(generator, 3, config.radial, width, variance=variance)
        self.filter_tensor = weight(generator, 2, config.radial, width, variance=variance)

    def forward(
        self,
        x: Float[Tensor, "atoms features"],
        y: Float[Tensor, "8 atoms features"],
        neighbours: Int[Tensor, "atoms width"],
        basis: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "8 atoms features"]]:
        radial, harmonic = basis
        n_atoms, width = x.shape
        ranks, tensor_ranks = index(RANKS, x.device), index(TENSOR_RANKS, x.device)
        flat = neighbours.reshape(-1)
        scalars, gates = self.source(x).split((width, 2 * width), dim=1)
        own = y.transpose(0, 1) * damped_gates(gates).view(n_atoms, 2, width).index_select(1, tensor_ranks)

        sources = scalars.index_select(0, flat).view(*neighbours.shape, width)
        sums = (harmonic @ sources).view(n_atoms, 9, -1, width)
        message = (sums * self.filter_scalar.index_select(0, ranks)).sum(2)

        sources = own.reshape(n_atoms, -1).index_select(0, flat).view(*neighbours.shape, 8 * width)
        sums = (radial @ sources).view(n_atoms, -1, 8, width)
        carried = (sums * self.filter_tensor.transpose(0, 1).index_select(1, tensor_ranks)).sum(1)

        scalars, tensors = message.split((1, 8), dim=1)
        return scalars.squeeze(1), (tensors + carried).transpose(0, 1)


def damped(y: Float[Tensor, "8 atoms features"]) -> tuple[Tensor, Tensor]:
    """Vectors and matrices shortened by (1 + mean square component)^(-1/4), and these factors."""
    size = (constant(rank_means, y.dtype, y.device) @ y.square().flatten(1)).view(2, *y.shape[1:])
    factors = (1 + size).rsqrt().sqrt().index_select(0, index(TENSOR_RANKS, y.device))
    return y * factors, factors


def damped_gates(gates: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Grow like a square root where they are large."""
    return gates * (1 + gates * gates).rsqrt().sqrt()


def products(q: Float[Tensor, "8 atoms features"]) -> tuple[Tensor, Tensor, Tensor]:
    """Products of an atom's own vector v and matrix t, none of which grows faster than its factors.

    Returns invariants |v|², |t|², v·t·v, tr(t t t) (4, …); tensors t·v and traceless t·t (8, …); traceless v⊗v (5, …).
    """
    shape = q.shape[1:]
    q, factors = damped(q)
    a, b = (index(side, q.device) for side in PAIRS)
    pairs = (q.index_select(0, a) * q.index_select(0, b)).flatten(1)
    squares, same, outer = (constant(quadratic_products, q.dtype, q.device) @ pairs).view(15, *shape).split((2, 8, 5))
    cubic = (constant(rank_sums, q.dtype, q.device) @ (q * factors * same).flatten(1)).view(2, *shape)
    return torch.cat([squares, cubic]), same, outer


class Update(nn.Module):
    """Node update: scalars and tensors of an atom exchange what products of its tensors say."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix_q = weight(generator, 2, width, width, variance=1 / width)
        self.mix_p = weight(generator, 2, width, width, variance=1 / width)
        self.gates = Perceptron(5 * width, width, 7 * width, generator)

    def forward(
        self, x: Float[Tensor, "atoms features"], y: Float[Tensor, "8 atoms features"]
    ) -> tuple[Float[Tensor, "atoms features"], Float[Tensor, "8 atoms features"]]:
        n_atoms, width = x.shape
        ranks = index(TENSOR_RANKS, x.device)
        short, _ = damped(y)
        p = short @ self.mix_p.index_select(0, ranks)
        invariants, same, outer = products(short @ self.mix_q.index_select(0, ranks))
        gates = self.gates(torch.cat([x.unsqueeze(0), invariants]).transpose(0, 1).reshape(n_atoms, -1))
        add, scale, gates = gates.split((width, width, 5 * width), dim=1)
        gates = damped_gates(gates).view(n_atoms, 5, width).transpose(0, 1)
        use = index(_GATE_OF_TERM, x.device)
        terms = torch.cat([p, same, outer]) * gates.index_select(0, use)
        change = (constant(_term_sums, x.dtype, x.device) @ terms.flatten(1)).view(8, n_atoms, width)
        return _gated(x, add, scale), y + change


_GATE_OF_TERM = (0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4)
"""Which gate multiplies each of the 21 components p (3 + 5), t·v (3), t·t (5), v⊗v (5)."""


def _term_sums() -> Float[np.ndarray, "8 21"]:
    """Adds the 21 gated components up to the 8 components of the features."""
    return np.concatenate([np.eye(8), np.eye(8), np.eye(8)[:, 3:]], axis=1)


class ScalarUpdate(nn.Module):
    """Node update of the last layer, of which only scalars are read."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mix_q = weight(generator, 2, width, width, variance=1 / width)
        self.gates = Perceptron(5 * width, width, 2 * width, generator)

    def forward(
        self, x: Float[Tensor, "atoms features"], y: Float[Tensor, "8 atoms features"]
    ) -> Float[Tensor, "atoms features"]:
        ranks = index(TENSOR_RANKS, x.device)
        invariants, _, _ = products(y @ self.mix_q.index_select(0, ranks))
        gates = self.gates(torch.cat([x.unsqueeze(0), invariants]).transpose(0, 1).reshape(x.shape[0], -1))
        add, scale = gates.chunk(2, dim=1)
        return _gated(x, add, scale)


def _gated(x: Tensor, add: Tensor, scale: Tensor) -> Tensor:
    return x + add * math.sqrt(0.5) + x * torch.tanh(scale)

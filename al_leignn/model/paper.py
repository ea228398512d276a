"""The network of preset `paper`: published LEIGNN (E2GNN), scalars and vectors with one virtual node per structure.

Z. Yang et al., arXiv:2311.02869; equations in docs/model.md. Two faults of the released program are mended: the
envelope multiplies the complete filter, which therefore has no bias outside it, and neighbours are not capped.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from al_leignn.config import ModelConfig
from al_leignn.model.graph import Graph
from al_leignn.model.layers import Perceptron, envelope, gaussians, weight
from al_leignn.shapes import Float, Int


class PaperNetwork(nn.Module):
    """Per-atom energies, and forces from a vector head if `config.direct_forces`."""

    def __init__(self, config: ModelConfig, n_species: int, generator: torch.Generator) -> None:
        super().__init__()
        width = config.features
        self.cutoff = config.cutoff
        self.radial = config.radial
        self.embedding = nn.Parameter((torch.rand(n_species, width, generator=generator) * 2 - 1) * math.sqrt(3))
        self.virtual = weight(generator, 1, width, variance=1.0)
        self.layers = nn.ModuleList(PaperLayer(config, generator) for _ in range(config.layers))
        self.readout = Perceptron(width, max(width // 2, 1), 1, generator, scale=0.1)
        self.force_head = weight(generator, 1, width, variance=0.01 / width) if config.direct_forces else None

    def basis(
        self,
        vectors: Float[Tensor, "atoms width 3"],
        lengths: Float[Tensor, "atoms width"],
        distances: Float[Tensor, "atoms width"],
    ) -> tuple[Tensor, ...]:
        """Radial functions, envelope, and unit vectors from neighbour to centre.

        `distances` are what radial functions see: the lengths, levelled off where atoms are pressed together.
        """
        d = distances / self.cutoff
        radial = gaussians(d, self.radial).transpose(1, 2)
        return radial, envelope(d.clamp(max=1.0)).unsqueeze(2), -vectors / lengths.unsqueeze(2)

    def forward(
        self, graph: Graph, neighbours: Int[Tensor, "atoms width"], basis: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, " atoms"], Float[Tensor, "atoms 3"] | None]:
        """Per-atom energies, and the forces of the vector head if there is one."""
        x = self.embedding.index_select(0, graph.species)
        v = x.new_zeros(x.shape[0], 3, x.shape[1])
        x_all = self.virtual.expand(graph.n_structures, -1)
        v_all = x.new_zeros(graph.n_structures, 3, x.shape[1])
        for layer in self.layers:
            x, v, x_all, v_all = layer(x, v, x_all, v_all, graph, neighbours, basis)
        forces = None if self.force_head is None else functional.linear(v, self.force_head).squeeze(2)
        return self.readout(x).squeeze(1), forces


class PaperLayer(nn.Module):
    """Global distribution, local message, node update, global aggregation."""

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.features
        self.distribute = Perceptron(2 * width, width, width, generator)
        self.distribute_vectors = weight(generator, width, width, variance=1 / width)
        self.source = Perceptron(width, max(width // 2, 1), 3 * width, generator)
        self.filter = weight(generator, 3 * width, config.radial, variance=1 / config.radial)
        self.filter_bias = nn.Parameter(torch.zeros(3 * width))
        self.mix = weight(generator, 2 * width, width, variance=1 / width)
        self.gates = Perceptron(2 * width, width, 3 * width, generator)
        self.aggregate = Perceptron(2 * width, width, width, generator)
        self.aggregate_vectors = weight(generator, width, width, variance=1 / width)

    def forward(
        self,
        x: Float[Tensor, "atoms features"],
        v: Float[Tensor, "atoms 3 features"],
        x_all: Float[Tensor, "structures features"],
        v_all: Float[Tensor, "structures 3 features"],
        graph: Graph,
        neighbours: Int[Tensor, "atoms width"],
        basis: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        of = graph.structure
        x = x + _activated(self.distribute(torch.cat([x, x_all.index_select(0, of)], dim=1)))
        v = v + functional.linear(v + v_all.index_select(0, of), self.distribute_vectors)
        x, v = self._message(x, v, neighbours, basis)
        x, v = self._update(x, v)
        x_all = x_all + _activated(self.aggregate(torch.cat([_means(x, graph), x_all], dim=1)))
        v_all = v_all + functional.linear(_means(v, graph) + v_all, self.aggregate_vectors)
        return x, v, x_all, v_all

    def _message(self, x: Tensor, v: Tensor, neighbours: Tensor, basis: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        radial, switch, direction = basis
        width = x.shape[1]
        # The radial functions carry the envelope already; the bias needs its own.
        weights = functional.linear(radial, self.filter) + switch * self.filter_bias
        terms = self.source(x)[neighbours] * weights * math.sqrt(1 / 3)
        carry, turn, scalar = terms.unsqueeze(2).split(width, dim=3)
        vectors = carry * v[neighbours] + turn * direction.unsqueeze(3)
        return (x + scalar.squeeze(2).sum(1)) * math.sqrt(0.5), v + vectors.sum(1) * math.sqrt(1 / width)

    def _update(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        p, q = functional.linear(v, self.mix).chunk(2, dim=2)
        norm = (q.square().sum(1) + 1e-8).sqrt()
        gate, add, scale = self.gates(torch.cat([x, norm], dim=1)).chunk(3, dim=1)
        return x + add * math.sqrt(0.5) + x * torch.tanh(scale), v + gate.unsqueeze(1) * p


def _activated(x: Tensor) -> Tensor:
    return functional.silu(x) / 0.6


def _means(values: Float[Tensor, "atoms *rest"], graph: Graph) -> Float[Tensor, "structures *rest"]:
    total = values.new_zeros(graph.n_structures, *values.shape[1:]).index_add(0, graph.structure, values)
    counts = torch.bincount(graph.structure, minlength=graph.n_structures).to(values.dtype)
    return total / counts.view(-1, *[1] * (values.dim() - 1))

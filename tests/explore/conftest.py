"""Potentials with known physics that drive walkers as a committee does."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from al_leignn.explore.driver import Evaluation
from al_leignn.model.graph import Graph


@dataclass
class Outcome:
    energy: Float[Tensor, "members structures"]
    node_energy: Float[Tensor, "members atoms"]
    forces: Float[Tensor, "members atoms 3"]
    stress: Float[Tensor, "members structures 3 3"] | None


@dataclass
class PairCommittee:
    """Members whose energy is a sum over pairs; a subclass gives energy and slope as functions of distance."""

    species: tuple[int, ...] = (18,)
    cutoff: float = 6.0
    strengths: tuple[float, ...] = (1.0,)
    """One member each: factors of the energy."""
    conservative: bool = True
    size_consistent: bool = True
    compiled: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: list[int] = field(default_factory=list)
    """How many members were asked, evaluation by evaluation."""

    def __len__(self) -> int:
        return len(self.strengths)

    def pair(self, distance: Float[Tensor, " edges"]) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        """Energy and its derivative by distance."""
        raise NotImplementedError

    def evaluate(self, graph: Graph, members: Sequence[int] | None = None, *, stress: bool = False) -> Evaluation:
        chosen = range(len(self)) if members is None else members
        f = torch.tensor([self.strengths[k] for k in chosen], dtype=torch.float64)
        self.asked.append(len(f))
        vector = graph.positions[graph.neighbour] - graph.positions[graph.centre] + graph.offsets()
        distance = vector.norm(dim=1)
        energy, slope = self.pair(distance)
        pull = (slope / distance).unsqueeze(1) * vector
        atoms = torch.zeros(graph.n_atoms, dtype=torch.float64).index_add(0, graph.centre, energy / 2)
        structures = torch.zeros(graph.n_structures, dtype=torch.float64).index_add(0, graph.structure, atoms)
        forces = torch.zeros_like(graph.positions).index_add(0, graph.centre, pull)
        virial = torch.zeros(graph.n_structures, 3, 3, dtype=torch.float64)
        virial.index_add_(0, graph.structure[graph.centre], 0.5 * pull.unsqueeze(2) * vector.unsqueeze(1))
        return Outcome(
            energy=f[:, None] * structures,
            node_energy=f[:, None] * atoms,
            forces=f[:, None, None] * forces,
            stress=f[:, None, None, None] * virial / graph.volume().view(-1, 1, 1) if stress else None,
        )


@dataclass
class LennardJones(PairCommittee):
    """Argon, with energy and force brought to zero at the cutoff."""

    sigma: float = 3.4
    epsilon: float = 0.0104

    def pair(self, distance: Float[Tensor, " edges"]) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        energy, slope = self._bare(distance)
        edge, edge_slope = self._bare(torch.tensor(self.cutoff, dtype=torch.float64))
        return energy - edge - edge_slope * (distance - self.cutoff), slope - edge_slope

    def _bare(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        six = (self.sigma / distance) ** 6
        return 4 * self.epsilon * (six**2 - six), 24 * self.epsilon * (six - 2 * six**2) / distance


@dataclass
class Springs(PairCommittee):
    """A spring of given length between all pairs within the cutoff."""

    length: float = 2.0
    stiffness: float = 5.0

    def pair(self, distance: Float[Tensor, " edges"]) -> tuple[Float[Tensor, " edges"], Float[Tensor, " edges"]]:
        stretch = distance - self.length
        return 0.5 * self.stiffness * stretch**2, self.stiffness * stretch


@pytest.fixture
def lennard_jones() -> type[LennardJones]:
    return LennardJones


@pytest.fixture
def springs() -> type[Springs]:
    return Springs

"""What pushes the walkers: one evaluation of a committee for all of them, and what it shows the watchdog."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from torch import Tensor

from al_leignn.core import Deviation
from al_leignn.deviation import deviations
from al_leignn.explore.bias import Bias
from al_leignn.explore.integrators import State
from al_leignn.explore.neighbours import Neighbours
from al_leignn.model.graph import Graph, trim
from al_leignn.shapes import Bool, Float


@runtime_checkable
class Evaluation(Protocol):
    """What members say of a batch of structures, in eV and Å."""

    @property
    def energy(self) -> Float[Tensor, "members structures"]: ...
    @property
    def node_energy(self) -> Float[Tensor, "members atoms"]: ...
    @property
    def forces(self) -> Float[Tensor, "members atoms 3"]: ...
    @property
    def stress(self) -> Float[Tensor, "members structures 3 3"] | None: ...


@runtime_checkable
class Potential(Protocol):
    """A `Committee`, or anything that answers like one."""

    @property
    def species(self) -> tuple[int, ...]: ...
    @property
    def cutoff(self) -> float: ...
    @property
    def conservative(self) -> bool: ...
    @property
    def size_consistent(self) -> bool: ...
    @property
    def compiled(self) -> bool:
        """Whether edges longer than the cutoff, which mean nothing, also cost next to nothing."""

    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def evaluate(self, graph: Graph, members: Sequence[int] | None = None, *, stress: bool = False) -> Evaluation:
        """Outputs of the chosen members, all by default, for a graph in double precision."""


@dataclass(frozen=True)
class Sight:
    """What an evaluation shows besides energies and forces."""

    contact: Float[Tensor, " walkers"]
    """Smallest distance over the sum of covalent radii, where it is below the limit; infinite elsewhere."""
    alone: Bool[Tensor, " atoms"]
    """Atoms without a neighbour."""
    bias: Float[Tensor, " walkers"]
    """What the bias adds to the potential energy, eV."""
    deviations: list[Deviation] | None
    """Of each walker, if all members were asked."""

    def select(self, keep: Sequence[int], atoms: Bool[Tensor, " atoms"]) -> "Sight":
        """That of some walkers and their atoms."""
        deviations = None if self.deviations is None else [self.deviations[w] for w in keep]
        return Sight(self.contact[list(keep)], self.alone[atoms], self.bias[list(keep)], deviations)


@dataclass
class Driver:
    """The forces on a batch of walkers.

    Attributes
    ----------
    member
        The member that drives; None for the mean of all.
    stress
        Whether the ensemble needs it.
    contact
        Distances below this share of the sum of covalent radii are reported.
    bias
        What is added to the mean of all members, if anything.
    """

    potential: Potential
    member: int | None
    stress: bool
    contact: float
    neighbours: Neighbours
    radii: Float[Tensor, " atoms"]
    """Covalent radii, Å."""
    compiled: bool
    """Asked once: the answer takes longer than the watchdog."""
    bias: Bias | None = None
    _looked_at: Float[Tensor, "atoms 3"] | None = field(init=False, default=None)
    """Where atoms were when distances were last looked at, Å."""
    _room: float = field(init=False, default=-np.inf)
    """How far atoms may move from there, with neither a contact nor a lone atom among them, Å."""

    @classmethod
    def of(
        cls,
        potential: Potential,
        structures: Sequence[Atoms],
        *,
        member: int | None,
        stress: bool,
        contact: float,
        bias: Bias | None = None,
        homes: Sequence[Float[np.ndarray, "3"]] | None = None,
    ) -> "Driver":
        """For walkers that are at `structures`; `homes` and errors as in `Neighbours.of`."""
        device = potential.device
        neighbours = Neighbours.of(structures, potential.cutoff, potential.species, flexible=stress, device=device, homes=homes)
        radii = torch.as_tensor(covalent_radii[np.concatenate([atoms.numbers for atoms in structures])], device=device)
        return cls(potential, member, stress, contact, neighbours, radii, potential.compiled, bias)

    def select(self, keep: Sequence[int], atoms: Bool[Tensor, " atoms"]) -> "Driver":
        """For some of the walkers and their atoms."""
        return replace(
            self,
            neighbours=self.neighbours.select(keep),
            radii=self.radii[atoms],
            bias=None if self.bias is None else self.bias.select(keep),
        )

    def evaluate(self, state: State, *, everyone: bool) -> Sight:
        """Bring forces, energy and stress of `state` up to date; ask all members if `everyone`."""
        self.neighbours.update(state.positions, state.cells)
        graph = self.neighbours.graph(state.positions, state.cells)
        if not self.compiled:
            graph = trim(graph, self.potential.cutoff)
        members = None if everyone or self.member is None else [self.member]
        output = self.potential.evaluate(graph, members, stress=self.stress)
        row = None if self.member is None else self.member if members is None else 0
        state.forces, state.energy = _driving(output.forces, row), _driving(output.energy, row)
        if output.stress is not None:
            state.stress = _driving(output.stress, row)
        bias = self._bias(state, output) if members is None else torch.zeros_like(state.energy)
        contact, alone = self._surroundings(state)
        return Sight(contact, alone, bias, _deviations(output, state.counts) if members is None else None)

    def _bias(self, state: State, output: Evaluation) -> Float[Tensor, " walkers"]:
        if self.bias is None:
            return torch.zeros_like(state.energy)
        if self.bias.origin is None:
            self.bias = self.bias.starting(output.energy)
        energy, push = self.bias.push(output.energy, output.forces, state)
        state.energy += energy
        state.forces += push
        return energy

    def _surroundings(self, state: State) -> tuple[Float[Tensor, " walkers"], Bool[Tensor, " atoms"]]:
        """Contacts and lone atoms, as in `Sight`. Distances are not looked at until an atom has moved far enough for either."""
        closest = torch.full_like(state.dof, torch.inf)
        if self._looked_at is not None:
            moved = torch.linalg.vector_norm(state.positions - self._looked_at, dim=1).max()
            if moved.item() < self._room:
                return closest, torch.zeros_like(state.walker, dtype=torch.bool)
        i, j, distance = self.neighbours.pairs(state.positions, state.cells)
        limit = self.contact * (self.radii[i] + self.radii[j])
        near = (distance < limit).nonzero().squeeze(1)  # almost always none
        if near.numel():
            closest.scatter_reduce_(0, state.walker[i[near]], self.contact * distance[near] / limit[near], "amin")
        nearest = torch.full_like(self.radii, torch.inf)
        for ends in (i, j):
            nearest.scatter_reduce_(0, ends, distance, "amin")
        alone = nearest >= self.potential.cutoff
        if not self.neighbours.flexible:
            # Moving two atoms by x changes their distance at most by 2 x. Those not in the list are at least a cutoff apart.
            beyond = (self.potential.cutoff - 2.0 * self.contact * self.radii.max()).view(1)
            self._looked_at = state.positions.clone()
            self._room = torch.cat([distance - limit, self.potential.cutoff - nearest, beyond]).min().item() / 2.0
        return closest, alone


def _driving(members: Float[Tensor, "members ..."], row: int | None) -> Float[Tensor, "..."]:
    """What drives: one member, or the mean of all."""
    return members.double().mean(0) if row is None else members[row].double()


def _deviations(output: Evaluation, counts: Sequence[int]) -> list[Deviation]:
    forces, energy = (t.detach().cpu().numpy() for t in (output.forces, output.energy))
    return deviations(forces, energy, counts)

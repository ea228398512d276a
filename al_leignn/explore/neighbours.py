"""Neighbours of all walkers of a batch at once, searched again only for those that moved too far.

`model.verlet.VerletList` follows one `Atoms` object that anything may have happened to; here positions stay on the device, and
the work per step is a few tensor operations however many walkers there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from al_leignn.errors import StructureError
from al_leignn.model.graph import Graph, build_graph, collate, select_edges
from al_leignn.shapes import Float, Int


@dataclass(frozen=True)
class _Searched:
    """One structure at its last search."""

    atoms: Atoms
    graph: Graph
    """Pairs within cutoff + skin, double precision."""
    home: Float[np.ndarray, "3"]
    """Mean position at the very start."""


class Pairs(NamedTuple):
    """Atoms that may be within the cutoff."""

    i: Int[Tensor, " pairs"]
    j: Int[Tensor, " pairs"]
    distance: Float[Tensor, " pairs"]
    """Å."""


@dataclass
class Neighbours:
    """Verlet lists with a skin (Verlet, Phys. Rev. 159, 98, 1967) of a batch of structures. Make them with `Neighbours.of`."""

    cutoff: float
    skin: float
    species: tuple[int, ...]
    flexible: bool
    device: torch.device
    searched: list[_Searched]
    _joined: Graph = field(init=False)
    _once: Graph = field(init=False)
    """`_joined` with half of its edges."""
    _offset: Float[Tensor, "pairs 3"] = field(init=False)
    """Lattice translation of each edge of `_once`, Å."""

    @classmethod
    def of(
        cls,
        structures: Sequence[Atoms],
        cutoff: float,
        species: Sequence[int],
        *,
        skin: float = 1.0,
        flexible: bool = False,
        device: torch.device | str = "cpu",
        homes: Sequence[Float[np.ndarray, "3"]] | None = None,
    ) -> "Neighbours":
        """Search `structures` as they are now.

        Parameters
        ----------
        cutoff
            Pairs up to here are always in the lists, Å.
        species
            Atomic numbers that the model knows, in its order.
        skin
            Pairs up to cutoff + skin are kept, Å: a wider skin is searched less often and is longer.
        flexible
            Whether cells may change (structures periodic in three directions only).
        device
            Where positions will be.
        homes
            Where the centres of structures belong along directions without periodicity, Å; by default where they are.

        Raises
        ------
        StructureError
            As `build_graph`.
        """
        known = tuple(species)
        centres = homes if homes is not None else [atoms.positions.mean(axis=0) for atoms in structures]
        searched = [
            _Searched(atoms, build_graph(atoms, cutoff + skin, known), home)
            for atoms, home in zip(structures, centres, strict=True)
        ]
        return cls(cutoff, skin, known, flexible, torch.device(device), searched)

    def __post_init__(self) -> None:
        self._join()

    @property
    def cells(self) -> Float[Tensor, "structures 3 3"]:
        """Cells at the last search, as a `Graph` has them: zero rows along directions without periodicity."""
        return self._joined.cell

    @property
    def homes(self) -> list[Float[np.ndarray, "3"]]:
        """Where the centres of structures belong along directions without periodicity, Å."""
        return [searched.home for searched in self.searched]

    def select(self, keep: Sequence[int]) -> "Neighbours":
        """The lists of some of the structures, without a new search."""
        return replace(self, searched=[self.searched[s] for s in keep])

    def update(self, positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> None:
        """Search again where an atom has moved too far; must precede `graph` whenever atoms have moved.

        The atoms of a structure that is searched again are folded into its cell, and along directions without periodicity
        its centre is put back where it started: coordinates stay small, distances and forces are the same. `positions`
        (Å, double precision) are changed in place. Where two atoms have become one, all of their structure become NaN.
        """
        self._search(self._strayed(positions, cells), positions, cells)

    def refresh(self, positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> None:
        """Search all structures again, as `update` does for some; what was searched before leaves no trace."""
        self._search(range(len(self.searched)), positions, cells)

    def _search(self, chosen: Sequence[int], positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> None:
        for s in chosen:
            old = self.searched[s]
            atoms = old.atoms.copy()
            if self.flexible:
                atoms.set_cell(cells[s].cpu().numpy(), scale_atoms=False)
            mine = self._joined.structure == s
            atoms.positions = positions[mine].cpu().numpy()
            _fold(atoms, old.home)
            try:
                graph = build_graph(atoms, self.cutoff + self.skin, self.species)
            except StructureError:
                positions[mine] = torch.nan
                continue
            positions[mine] = graph.positions.to(self.device)
            self.searched[s] = _Searched(atoms, graph, old.home)
        if chosen:
            self._join()

    def graph(self, positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> Graph:
        """Graph at these positions (double precision): all edges up to the cutoff and, until the next search, some longer."""
        return replace(self._joined, positions=positions, cell=cells)

    def pairs(self, positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> Pairs:
        """The edges of `graph`, each one way only."""
        once = replace(self._once, positions=positions, cell=cells)
        return Pairs(once.centre, once.neighbour, once.lengths(None if self.flexible else self._offset))

    def _join(self) -> None:
        self._joined = collate([s.graph for s in self.searched]).to(self.device)
        # Edges between an atom and its own images stay twice, which does no harm.
        self._once = select_edges(self._joined, (self._joined.neighbour >= self._joined.centre).nonzero().squeeze(1))
        self._offset = self._once.offsets()

    def _strayed(self, positions: Float[Tensor, "atoms 3"], cells: Float[Tensor, "structures 3 3"]) -> list[int]:
        """Structures in which two atoms that are not in the list may have come within the cutoff.

        A deformation of the cell since the last search carries every atom and image along; it shortens a distance at most
        by its smallest singular value. What an atom moved besides counts as in a rigid cell.
        """
        last = self._joined
        if self.flexible:
            deformation = torch.linalg.solve(last.cell, cells)
            carried = (last.positions.unsqueeze(2) * deformation[last.structure]).sum(1)
            shortest = (self.cutoff + self.skin) * torch.linalg.svdvals(deformation)[:, -1]
            far = (positions - carried).norm(dim=1) > ((shortest - self.cutoff) / 2)[last.structure]
        else:
            far = (positions - last.positions).norm(dim=1) > self.skin / 2
        structures: list[int] = last.structure[far].unique().tolist() if bool(far.any()) else []
        return structures


def _fold(atoms: Atoms, home: Float[np.ndarray, "3"]) -> None:
    """Translate by lattice vectors into the cell, and as a whole along directions without periodicity to `home`."""
    atoms.wrap()
    periodic = np.linalg.qr(atoms.cell.array[atoms.pbc].T)[0]
    drift = atoms.positions.mean(axis=0) - home
    atoms.positions -= drift - periodic @ (periodic.T @ drift)

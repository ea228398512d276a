"""Neighbour lists that are reused while atoms move little (Verlet skin)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms

from al_leignn.model.graph import OVERLAP, Graph, build_graph, checked_cell, trim
from al_leignn.shapes import Float


@dataclass(frozen=True)
class _Search:
    """What the last neighbour search was made of and found."""

    atoms: Atoms
    cell: Float[np.ndarray, "3 3"]
    """Completed along directions without periodicity, Å."""
    graph: Graph
    closest: float
    """Smallest distance, Å."""


class VerletList:
    """Graphs of a structure that moves, with a neighbour search only when it is needed.

    The search reaches `skin` beyond the cutoff. Under a homogeneous strain F of the cell since the search (smallest
    singular value s) and displacements of at most d beyond it, a pair that was a apart is now at least s a - 2 d apart. The
    list holds as long as no pair out of its reach can have come within the cutoff, and none of its pairs can have become one
    atom twice. Atoms may be moved by lattice vectors, or wrapped into the cell, at any time.

    Parameters
    ----------
    cutoff, skin
        Å.
    species
        Atomic numbers the model knows, in its order.
    """

    def __init__(self, cutoff: float, species: Sequence[int], *, skin: float) -> None:
        self.cutoff = cutoff
        self.species = tuple(species)
        self.skin = skin
        self.searches = 0
        """Neighbour searches so far."""
        self._last: _Search | None = None

    def graph(self, atoms: Atoms, *, trimmed: bool = True) -> Graph:
        """Graph with all edges up to the cutoff, and with some longer ones unless `trimmed`; errors as `build_graph`."""
        cell = checked_cell(atoms)
        moved = self._moved(atoms, cell)
        if moved is None:
            moved = build_graph(atoms, self.cutoff + self.skin, self.species)
            closest = float(moved.lengths().min()) if len(moved.centre) else np.inf
            self._last = _Search(atoms.copy(), cell, moved, closest)
            self.searches += 1
        return trim(moved, self.cutoff) if trimmed and self.skin > 0 else moved

    def _moved(self, atoms: Atoms, cell: Float[np.ndarray, "3 3"]) -> Graph | None:
        """The last graph with the atoms of now, if its edges still hold."""
        last = self._last
        if last is None or self.skin <= 0:
            return None
        old = last.atoms
        if not (np.array_equal(old.numbers, atoms.numbers) and np.array_equal(old.pbc, atoms.pbc)):
            return None
        strain = np.linalg.solve(last.cell, cell)
        shortest = float(np.linalg.svd(strain, compute_uv=False)[-1])
        displacement = atoms.positions - old.positions @ strain
        lattice = np.where(old.pbc, np.rint(displacement @ np.linalg.inv(cell)), 0.0) @ cell
        farthest = float(np.linalg.norm(displacement - lattice, axis=1).max())
        if shortest * (self.cutoff + self.skin) - 2 * farthest < self.cutoff or shortest * last.closest - 2 * farthest < OVERLAP:
            return None
        return replace(
            last.graph,
            positions=torch.from_numpy(atoms.positions - lattice),
            cell=torch.from_numpy(np.where(old.pbc[:, None], cell, 0.0)).unsqueeze(0),
        )

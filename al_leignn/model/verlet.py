"""Neighbour lists that are reused while atoms move little (Verlet skin)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from ase.geometry import complete_cell

from al_leignn.model.graph import Graph, build_graph, trim


class VerletList:
    """Graphs of a structure that moves, with a neighbour search only when it is needed.

    The search reaches `skin` beyond the cutoff. Under a homogeneous strain F of the cell since the search (smallest
    singular value s) and displacements of at most d beyond it, a pair that was out of reach is now at least
    s (cutoff + skin) - 2 d apart; the list holds as long as that is no less than the cutoff. Atoms may be moved by lattice
    vectors, or wrapped into the cell, at any time.

    Parameters
    ----------
    cutoff, skin
        Å.
    species
        Atomic numbers the model knows, in its order.
    """

    def __init__(self, cutoff: float, species: Sequence[int], *, skin: float, dtype: torch.dtype = torch.float64) -> None:
        self.cutoff = cutoff
        self.species = tuple(species)
        self.skin = skin
        self.dtype = dtype
        self.searches = 0
        """Neighbour searches so far."""
        self._atoms: Atoms | None = None
        self._graph: Graph | None = None

    def graph(self, atoms: Atoms, *, trimmed: bool = True) -> Graph:
        """Graph with all edges up to the cutoff, and with some longer ones unless `trimmed`; errors as `build_graph`."""
        moved = self._moved(atoms)
        if moved is None:
            self._graph = build_graph(atoms, self.cutoff + self.skin, self.species, self.dtype)
            self._atoms = atoms.copy()
            self.searches += 1
            moved = self._graph
        return trim(moved, self.cutoff) if trimmed and self.skin > 0 else moved

    def _moved(self, atoms: Atoms) -> Graph | None:
        """The last graph with the atoms of now, if its edges still hold."""
        old = self._atoms
        if old is None or self._graph is None or self.skin <= 0:
            return None
        if not (np.array_equal(old.numbers, atoms.numbers) and np.array_equal(old.pbc, atoms.pbc)):
            return None
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            return None
        before, now = (complete_cell(np.where(old.pbc[:, None], np.asarray(a.cell), 0.0)) for a in (old, atoms))
        strain = np.linalg.solve(before, now)
        shortest = float(np.linalg.svd(strain, compute_uv=False)[-1])
        displacement = atoms.positions - old.positions @ strain
        lattice = np.where(old.pbc, np.rint(np.linalg.solve(now.T, displacement.T).T), 0.0) @ now
        farthest = float(np.linalg.norm(displacement - lattice, axis=1).max())
        if shortest * (self.cutoff + self.skin) - 2 * farthest < self.cutoff:
            return None
        return replace(
            self._graph,
            positions=torch.tensor(atoms.positions - lattice, dtype=self.dtype),
            cell=torch.tensor(np.where(old.pbc[:, None], now, 0.0), dtype=self.dtype).unsqueeze(0),
        )

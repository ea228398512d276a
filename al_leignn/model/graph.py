"""Structures as tensors: who is whose neighbour. The neighbour search is vesin's, O(N), for any cell and any periodicity."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from torch import Tensor
from vesin import NeighborList

from al_leignn.errors import StructureError
from al_leignn.geometry import widths
from al_leignn.shapes import Bool, Float, Int

OVERLAP = 1e-3
"""Two atoms closer than this (Å) are one atom twice: a broken structure."""

FLAT = 1e-6
"""A cell whose volume is below this share of the product of its edges has none."""

LONGEST, THINNEST = 1e5, 0.1
"""Largest component and smallest distance between opposite faces of a periodic cell that is searched for neighbours, Å."""

FAR = 1e3
"""Length (Å) of the vectors that fill the rows of atoms with fewer neighbours than the widest row."""


@dataclass(frozen=True)
class Graph:
    """One or many structures as tensors on one device.

    Edges run both ways, sorted by centre.

    To move atoms without a new neighbour search, use `dataclasses.replace(graph, positions=..., cell=...)`; edges
    longer than the model's cutoff contribute nothing.
    """

    species: Int[Tensor, " atoms"]
    """Index into the model's tuple of species."""
    positions: Float[Tensor, "atoms 3"]
    """Å, as given: atoms may sit outside the cell, `shift` accounts for it."""
    cell: Float[Tensor, "structures 3 3"]
    """Lattice vectors as rows, Å; zero rows where there are none."""
    structure: Int[Tensor, " atoms"]
    """Index of the structure an atom belongs to, ascending."""
    centre: Int[Tensor, " edges"]
    """Atom i of each edge, ascending."""
    neighbour: Int[Tensor, " edges"]
    """Atom j of each edge."""
    shift: Float[Tensor, "edges 3"]
    """Whole lattice vectors S; the edge is r_j + S @ cell - r_i."""
    n_structures: int
    periodic: Bool[Tensor, " structures"]
    """Periodic in three dimensions, so stress is defined."""

    @property
    def n_atoms(self) -> int:
        return self.species.shape[0]

    @cached_property
    def rows(self) -> Int[Tensor, "atoms width"]:
        """Edges of each centre; filled up with the number of edges, which is no edge.

        Sums over a rectangle of neighbours are matrix products, which are far cheaper than scattered sums.
        """
        n_edges = self.centre.shape[0]
        counts = torch.bincount(self.centre, minlength=self.n_atoms)
        width = int(counts.max()) if n_edges else 0
        first = counts.cumsum(0) - counts
        rows = torch.full((self.n_atoms, width), n_edges, dtype=torch.int64, device=self.centre.device)
        edges = torch.arange(n_edges, device=self.centre.device)
        rows[self.centre, edges - first[self.centre]] = edges
        return rows

    def to(self, device: torch.device | str) -> "Graph":
        """Copy on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def neighbours(self) -> Int[Tensor, "atoms width"]:
        """Atom j of each entry of `rows`; padding points back to the centre itself."""
        centre = torch.arange(self.n_atoms, device=self.rows.device).unsqueeze(1)
        padded = torch.cat([self.neighbour, self.neighbour.new_zeros(1)])
        return torch.where(self.rows < self.neighbour.shape[0], padded[self.rows], centre)

    def offsets(self) -> Float[Tensor, "edges 3"]:
        """Lattice translation of each edge, Å."""
        if self.n_structures == 1:
            return self.shift @ self.cell[0]
        cell = self.cell.index_select(0, self.structure.index_select(0, self.centre))
        return (self.shift.unsqueeze(2) * cell).sum(1)

    def lengths(self, offsets: Float[Tensor, "edges 3"] | None = None) -> Float[Tensor, " edges"]:
        """Length of each edge, Å; `offsets` spares their computation where they are known."""
        ends = self.positions.index_select(0, self.neighbour) - self.positions.index_select(0, self.centre)
        vectors = ends + (self.offsets() if offsets is None else offsets)
        return (vectors.square() @ vectors.new_ones(3)).sqrt()  # a sum over rows of three is several times slower

    def vectors(self, neighbours: Int[Tensor, "atoms width"]) -> Float[Tensor, "atoms width 3"]:
        """Vector from centre to neighbour of each entry of `rows`, Å; padding has length `FAR`."""
        offset = self.offsets()
        offset = torch.cat([offset, offset.new_tensor([[FAR, 0.0, 0.0]])])
        shape = (*neighbours.shape, 3)
        ends = self.positions.index_select(0, neighbours.reshape(-1)) + offset.index_select(0, self.rows.reshape(-1))
        return ends.view(shape) - self.positions.unsqueeze(1)

    def volume(self) -> Float[Tensor, " structures"]:
        """Cell volume, Å^3; 1 where there is no 3-D cell."""
        volume = torch.linalg.det(self.cell).abs()
        return torch.where(self.periodic, volume, torch.ones_like(volume))


@dataclass(frozen=True)
class Edges:
    """Edges of a graph as a rectangle, with all that is computed from them without parameters.

    Members of a committee share it.
    """

    vectors: Float[Tensor, "atoms width 3"]
    """From centre to neighbour, Å; padding has length `FAR`."""
    neighbours: Int[Tensor, "atoms width"]
    """Atom j; padding points back to the centre."""
    core: Float[Tensor, "atoms width"] | None
    """Core radius of each pair, Å; None where no pair is that close."""
    basis: tuple[Tensor, ...]
    """What the network makes of the vectors first; its own affair."""


def build_graph(atoms: Atoms, cutoff: float, species: Sequence[int]) -> Graph:
    """Graph of one structure, on the CPU, in double precision.

    Parameters
    ----------
    cutoff
        Longest edge, Å.
    species
        Atomic numbers the model knows, in its order.

    Raises
    ------
    StructureError
        No atoms, an element the model does not know, positions or cell that are not finite, a periodic cell
        without volume, or atoms on top of each other.
    """
    index = _species_index(atoms, species)
    cell = checked_cell(atoms)
    _refuse_extremes(atoms, cell)
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=torch.get_num_threads())
    i, j, shift, distance = search.compute(points=atoms.positions, box=cell, periodic=np.asarray(atoms.pbc), quantities="ijSd")
    if len(distance) and distance.min() < OVERLAP:
        worst = int(distance.argmin())
        raise StructureError(
            f"atoms {i[worst]} and {j[worst]} are {distance[worst]:.1e} Å apart",
            where=str(atoms.symbols),
            fix="remove one of them, or check the cell and its periodicity",
        )
    return Graph(
        species=torch.from_numpy(index),
        positions=torch.tensor(atoms.positions),
        cell=torch.tensor(np.where(atoms.pbc[:, None], cell, 0.0)).unsqueeze(0),
        structure=torch.zeros(len(atoms), dtype=torch.int64),
        centre=torch.from_numpy(i.astype(np.int64)),
        neighbour=torch.from_numpy(j.astype(np.int64)),
        shift=torch.tensor(shift, dtype=torch.float64),
        n_structures=1,
        periodic=torch.tensor([bool(atoms.pbc.all())]),
    )


def collate(graphs: Sequence[Graph]) -> Graph:
    """Many graphs as one; atoms, edges and structures keep their order."""
    if len(graphs) == 1:
        return graphs[0]
    structures = np.cumsum([0] + [g.n_structures for g in graphs])
    atoms = np.cumsum([0] + [g.n_atoms for g in graphs])
    return Graph(
        species=torch.cat([g.species for g in graphs]),
        positions=torch.cat([g.positions for g in graphs]),
        cell=torch.cat([g.cell for g in graphs]),
        structure=torch.cat([g.structure + int(first) for g, first in zip(graphs, structures, strict=False)]),
        centre=torch.cat([g.centre + int(first) for g, first in zip(graphs, atoms, strict=False)]),
        neighbour=torch.cat([g.neighbour + int(first) for g, first in zip(graphs, atoms, strict=False)]),
        shift=torch.cat([g.shift for g in graphs]),
        n_structures=int(structures[-1]),
        periodic=torch.cat([g.periodic for g in graphs]),
    )


def select_edges(graph: Graph, keep: Int[Tensor, " kept"]) -> Graph:
    """The same structures with some of their edges, given in ascending order."""
    return replace(graph, centre=graph.centre[keep], neighbour=graph.neighbour[keep], shift=graph.shift[keep])


def select_atoms(graph: Graph, keep: Int[Tensor, " kept"]) -> Graph:
    """The same structures with some of their atoms, given in ascending order, and the edges between these."""
    index = torch.full((graph.n_atoms,), -1, dtype=torch.int64, device=keep.device)
    index[keep] = torch.arange(len(keep), device=keep.device)
    centre, neighbour = index[graph.centre], index[graph.neighbour]
    inside = (centre >= 0) & (neighbour >= 0)
    return replace(
        graph,
        species=graph.species[keep],
        positions=graph.positions[keep],
        structure=graph.structure[keep],
        centre=centre[inside],
        neighbour=neighbour[inside],
        shift=graph.shift[inside],
    )


def trim(graph: Graph, cutoff: float) -> Graph:
    """The same graph without the edges longer than `cutoff` (Å)."""
    # What is not a number stays, so that it shows in the results.
    return select_edges(graph, (~(graph.lengths() >= cutoff)).nonzero().squeeze(1))


def _species_index(atoms: Atoms, species: Sequence[int]) -> Int[np.ndarray, " atoms"]:
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms")
    lookup = np.full(len(chemical_symbols), -1, dtype=np.int64)
    lookup[list(species)] = np.arange(len(species))
    index: Int[np.ndarray, " atoms"] = lookup[atoms.numbers]
    if (index < 0).any():
        unknown = ", ".join(sorted({chemical_symbols[z] for z in atoms.numbers[index < 0]}))
        raise StructureError(
            f"the model does not know {unknown}",
            where=str(atoms.symbols),
            fix="train it on labels with this element; it knows " + ", ".join(chemical_symbols[z] for z in species),
        )
    return index


def _refuse_extremes(atoms: Atoms, cell: Float[np.ndarray, "3 3"]) -> None:
    """Refuse cells on which the search for neighbours divides by zero, which ends the process, or never comes to an end."""
    if not atoms.pbc.any():
        return
    longest = float(np.abs(cell[atoms.pbc]).max())
    thinnest = 0.0 if longest > LONGEST else float(widths(cell)[atoms.pbc].min())
    if thinnest < THINNEST:
        raise StructureError(
            f"the periodic cell is {longest:.3g} Å long" if longest > LONGEST else f"the periodic cell is {thinnest:.3g} Å thin",
            where=str(atoms.symbols),
            fix="lengths are in Å; look for a misplaced decimal point",
        )


def checked_cell(atoms: Atoms) -> Float[np.ndarray, "3 3"]:
    """Cell completed by unit vectors along directions without periodicity, Å; only its periodic rows matter.

    Raises
    ------
    StructureError
        Positions or cell that are not finite, or a periodic cell without volume.
    """
    where = str(atoms.symbols)
    if not np.isfinite(atoms.positions).all():
        raise StructureError("positions are not finite numbers", where=where, fix="look for NaN or inf in the input")
    cell = np.array(atoms.cell)
    if not np.isfinite(cell).all():
        raise StructureError("the cell is not made of finite numbers", where=where, fix="look for NaN or inf in the input")
    periodic = cell[atoms.pbc]
    lengths = np.linalg.norm(periodic, axis=1, keepdims=True)
    unit = np.divide(periodic, lengths, out=np.zeros_like(periodic), where=lengths > 0)
    if not np.linalg.det(unit @ unit.T) > FLAT**2:
        raise StructureError(
            "the periodic cell has no volume", where=where, fix="give lattice vectors along every periodic direction"
        )
    if not atoms.pbc.all():
        cell[:] = complete_cell(np.where(atoms.pbc[:, None], cell, 0.0))
    return cell

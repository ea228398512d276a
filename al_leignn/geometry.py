"""Distances in a structure, for whoever must tell matter from a heap of atoms: seeds, selection, labelling."""

import itertools
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from al_leignn.shapes import Float, Int


def neighbours(
    atoms: Atoms, cutoff: float
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """All ordered pairs (i, j) within `cutoff` Å, periodic images included, and their distances."""
    first, second, vectors = neighbour_vectors(atoms, cutoff)
    return first, second, np.linalg.norm(vectors, axis=1)


def neighbour_vectors(
    atoms: Atoms, cutoff: float
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, "pairs 3"]]:
    """All ordered pairs (i, j) within `cutoff` Å, periodic images included, and the vectors from i to j.

    scipy's tree over explicit images: fast enough here, and unlike the model's neighbour list it does not load torch.
    """
    from scipy.spatial import KDTree  # slow to load, and `al-leignn check` gets along without

    n = len(atoms)
    whole = atoms.copy()
    whole.wrap()
    cell = np.asarray(whole.cell.complete())
    reach = np.where(whole.pbc, np.ceil(cutoff / widths(cell)), 0).astype(int)
    # The home image comes first, so that j == i is the atom itself.
    shifts = sorted(itertools.product(*(range(-m, m + 1) for m in reach)), key=lambda shift: any(shift))
    images = ((np.array(shifts) @ cell)[:, None, :] + whole.positions).reshape(-1, 3)
    pairs = KDTree(whole.positions).sparse_distance_matrix(KDTree(images), cutoff, output_type="ndarray")
    first, second = pairs["i"], pairs["j"]
    other = first != second
    first, second = first[other], second[other]
    return first, second % n, images[second] - whole.positions[first]


def widths(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distance between opposite faces of the cell, Å; 0 for a cell without volume."""
    faces = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    volume = abs(np.linalg.det(cell))
    return np.asarray(np.divide(volume, faces, out=np.zeros(3), where=faces > 0))


class Contact(NamedTuple):
    """Two atoms near one another; periodic images count, so both may be the same atom."""

    i: int
    j: int
    distance: float
    """Å."""
    touch: float
    """Sum of covalent radii, Å (Cordero et al., Dalton Trans. 2832, 2008)."""

    @property
    def ratio(self) -> float:
        return self.distance / self.touch


def closest_contact(atoms: Atoms, factor: float = 1.0) -> Contact | None:
    """The pair nearest in units of its covalent radii, if it is nearer than `factor` times their sum."""
    radii = covalent_radii[atoms.numbers]
    i, j, distance = neighbours(atoms, 2 * factor * float(radii.max()))
    touch = radii[i] + radii[j]
    if not (distance < factor * touch).any():
        return None
    n = int(np.argmin(distance / touch))
    return Contact(int(i[n]), int(j[n]), float(distance[n]), float(touch[n]))

"""Geometry of a frame as selection sees it: neighbours, and whether the frame is matter at all."""

import itertools

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float, Int
from scipy.spatial import KDTree

LARGEST_COORDINATE = 1e4
"""Å. Atoms farther out than this have left any cell or molecule worth a label."""

SMALLEST_WIDTH = 0.5
"""Å. A periodic cell thinner than this has collapsed."""


def neighbours(
    atoms: Atoms, cutoff: float
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """All ordered pairs (i, j) within `cutoff` Å, periodic images included, and their distances.

    scipy's tree over explicit images: fast enough here, and unlike the model's neighbour list it does not load torch.
    """
    n = len(atoms)
    whole = atoms.copy()
    whole.wrap()
    cell = np.asarray(whole.cell.complete())
    reach = np.where(whole.pbc, np.ceil(cutoff / _widths(cell)), 0).astype(int)
    # The home image comes first, so that j == i is the atom itself.
    shifts = sorted(itertools.product(*(range(-m, m + 1) for m in reach)), key=lambda shift: any(shift))
    images = (np.array(shifts) @ cell)[:, None, :] + whole.positions
    pairs = KDTree(whole.positions).sparse_distance_matrix(KDTree(images.reshape(-1, 3)), cutoff, output_type="ndarray")
    pairs = pairs[pairs["i"] != pairs["j"]]
    return pairs["i"], pairs["j"] % n, pairs["v"]


def _widths(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distance between opposite faces of the cell, Å; 0 for a cell without volume."""
    faces = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    volume = abs(np.linalg.det(cell))
    return np.asarray(np.divide(volume, faces, out=np.zeros(3), where=faces > 0))


def is_unphysical(atoms: Atoms, min_distance_factor: float) -> bool:
    """Whether DFT on this geometry would be wasted.

    True for coordinates that are not finite or beyond `LARGEST_COORDINATE`, for a collapsed periodic cell, and for two
    atoms (periodic images included) closer than `min_distance_factor` times the sum of their covalent radii
    (Cordero et al., Dalton Trans. 2832, 2008).
    """
    coordinates = np.concatenate([atoms.positions, np.asarray(atoms.cell)])
    if not (np.abs(coordinates) <= LARGEST_COORDINATE).all():  # NaN compares as false
        return True
    if (_widths(np.asarray(atoms.cell.complete()))[atoms.pbc] < SMALLEST_WIDTH).any():
        return True
    radii = covalent_radii[atoms.numbers]
    i, j, distance = neighbours(atoms, 2 * min_distance_factor * float(radii.max()))
    return bool((distance < min_distance_factor * (radii[i] + radii[j])).any())

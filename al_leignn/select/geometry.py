"""Geometry of a frame as selection sees it: whether it is matter at all."""

import numpy as np
from ase import Atoms

from al_leignn.geometry import closest_contact, widths

LARGEST_COORDINATE = 1e4
"""Å. Atoms farther out than this have left any cell or molecule worth a label."""

SMALLEST_WIDTH = 0.5
"""Å. A periodic cell thinner than this has collapsed."""


def is_unphysical(atoms: Atoms, min_distance_factor: float) -> bool:
    """Whether DFT on this geometry would be wasted.

    True for coordinates that are not finite or beyond `LARGEST_COORDINATE`, for a collapsed periodic cell, and for two
    atoms (periodic images included) closer than `min_distance_factor` times the sum of their covalent radii
    (`geometry.Contact`).
    """
    coordinates = np.concatenate([atoms.positions, np.asarray(atoms.cell)])
    if not (np.abs(coordinates) <= LARGEST_COORDINATE).all():  # NaN compares as false
        return True
    if (widths(np.asarray(atoms.cell.complete()))[atoms.pbc] < SMALLEST_WIDTH).any():
        return True
    return closest_contact(atoms, min_distance_factor) is not None

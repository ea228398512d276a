"""Cells for codes that compute in a box: empty space where a structure is not periodic."""

import numpy as np
from ase import Atoms
from ase.cell import Cell


def in_box(atoms: Atoms, vacuum: float) -> Atoms:
    """A copy with at least `vacuum` Å of empty space on either side along every direction that is not periodic.

    The copy is shifted as a whole to the middle of those directions, never rotated: forces hold for the original as they are.
    A cell that is large enough keeps its size, so that all frames of a campaign share one basis; otherwise the size is rounded
    up to whole Å for the same reason. Vectors along free directions are set normal to the periodic ones.
    """
    boxed: Atoms = atoms.copy()
    if boxed.pbc.all():
        return boxed
    given, cell = np.array(atoms.cell), np.array(atoms.cell)
    cell[~atoms.pbc] = 0.0
    normals = np.array(Cell(cell).complete())
    for axis in np.flatnonzero(~atoms.pbc):
        normal = normals[axis] / np.linalg.norm(normals[axis])
        along = boxed.positions @ normal
        needed = float(np.ptp(along)) + 2 * vacuum
        height = abs(float(given[axis] @ normal))
        length = height if height >= needed else float(np.ceil(needed))
        cell[axis] = length * normal
        boxed.positions += (length / 2 - (along.min() + along.max()) / 2) * normal
    boxed.cell[:] = cell
    return boxed

"""The surroundings of one atom, cut out of a large frame as something that can be labelled for less.

A local fault in a cell of a thousand atoms needs no label of a thousand atoms. What the cut exposes is not the material any more,
but it is a structure like any other: its label is right for what it is.
"""

import itertools
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from al_leignn.geometry import neighbours, widths
from al_leignn.shapes import Bool, Int

BOND = 1.2
"""Atoms nearer than this many sums of their covalent radii are bonded."""

LARGEST_MOLECULE = 20
"""Atoms. Bonded groups up to this size are never cut apart; larger ones are networks, and cannot but be cut."""

VACUUM = 6.0
"""Å around a cluster."""

CLEARANCE = 0.8
"""Atoms of a cell nearer to an image than this share of their touching distance are left out, the outermost first."""


def cut_out(atoms: Atoms, centre: int, radius: float, kind: Literal["cluster", "cell"]) -> tuple[Atoms, int]:
    """Atoms around atom `centre`, whole molecules, and the index of that atom among them.

    Parameters
    ----------
    atoms
        With finite coordinates.
    centre
        Index of the atom; it comes to lie in the middle.
    radius
        Å. All atoms within it are kept, with the rest of their molecules.
    kind
        "cluster": without periodicity, `VACUUM` on all sides. "cell": a periodic cube of twice the radius, from which is
        left out what would touch its own images.

    Returns
    -------
    Atoms, int
        Where the cut would be no smaller than `atoms`, those and `centre`.
    """
    around, origin = _surroundings(atoms, centre, 2 * radius)
    molecule = _molecules(around)
    distance = np.abs(around.positions).max(axis=1) if kind == "cell" else np.linalg.norm(around.positions, axis=1)
    if kind == "cell":
        middles = np.array([np.abs(around.positions[molecule == m].mean(axis=0)).max() for m in range(molecule.max() + 1)])
        keep = middles[molecule] < radius
    else:
        keep = np.isin(molecule, molecule[distance <= radius])
    keep[molecule == molecule[origin]] = True
    if int(keep.sum()) >= len(atoms):
        return atoms, centre
    cut = around[keep]
    place = int(keep[:origin].sum())
    if kind == "cluster":
        cut.center(vacuum=VACUUM)
        return cut, place
    cut.set_cell(np.full(3, 2 * radius))
    cut.pbc = True
    cut.positions += radius
    cleared = _clear(cut, place, molecule[keep])
    # A central molecule that touches its own images needs a wider cell than was asked for.
    return (cut[cleared], int(cleared[:place].sum())) if cleared[place] else (atoms, centre)


def _surroundings(atoms: Atoms, centre: int, reach: float) -> tuple[Atoms, int]:
    """All atoms and images within a cube of half-width `reach` around the centre, which moves to 0, and its index."""
    cell = np.asarray(atoms.cell.complete())
    images = np.where(atoms.pbc, np.ceil(reach / widths(cell)).astype(int) + 1, 0)
    shifts = np.array(sorted(itertools.product(*(range(-m, m + 1) for m in images)), key=lambda s: tuple(map(abs, s))))
    positions = (shifts @ cell)[:, None, :] + atoms.positions - atoms.positions[centre]
    near = (np.abs(positions) <= reach).all(axis=-1)
    copy, index = np.nonzero(near)
    found = Atoms(numbers=atoms.numbers[index], positions=positions[copy, index])
    return found, int(np.flatnonzero((copy == 0) & (index == centre))[0])


def _molecules(atoms: Atoms) -> Int[np.ndarray, " n_atoms"]:
    """Number of the molecule of each atom; atoms of larger networks stand alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    radii = covalent_radii[atoms.numbers]
    pairs = KDTree(atoms.positions).query_pairs(2 * BOND * float(radii.max()), output_type="ndarray")
    distance = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)
    bonded = pairs[distance < BOND * (radii[pairs[:, 0]] + radii[pairs[:, 1]])]
    graph = coo_array((np.ones(len(bonded)), (bonded[:, 0], bonded[:, 1])), shape=(len(atoms), len(atoms)))
    count, group = connected_components(graph, directed=False)
    alone = np.bincount(group)[group] > LARGEST_MOLECULE
    group[alone] = count + np.arange(alone.sum())
    return np.asarray(np.unique(group, return_inverse=True)[1].reshape(-1), dtype=int)


def _clear(cell: Atoms, centre: int, molecule: Int[np.ndarray, " n_atoms"]) -> Bool[np.ndarray, " n_atoms"]:
    """Whether each atom stays: from the centre outwards, the molecules that touch no image of one kept before."""
    radii = covalent_radii[cell.numbers]
    i, j, distance = neighbours(cell, 2 * CLEARANCE * float(radii.max()))
    direct = np.isclose(distance, np.linalg.norm(cell.positions[i] - cell.positions[j], axis=1), atol=1e-6)
    touching = (distance < CLEARANCE * (radii[i] + radii[j])) & ~((molecule[i] == molecule[j]) & direct)
    clashes = {(int(molecule[a]), int(molecule[b])) for a, b in zip(i[touching], j[touching], strict=True)}
    from_centre = np.linalg.norm(cell.positions - cell.positions[centre], axis=1)
    order = sorted(set(molecule.tolist()), key=lambda m: (m != molecule[centre], from_centre[molecule == m].mean()))
    kept: list[int] = []
    for m in order:
        if not any((m, other) in clashes for other in [*kept, m]):
            kept.append(m)
    return np.isin(molecule, kept)

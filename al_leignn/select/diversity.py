"""Which frames differ: a model-free description of a frame, and selection of frames far from one another.

The description knows nothing of the committee, so it also sees novelty that the committee is blind to.
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from al_leignn.core import Frame
from al_leignn.geometry import neighbours
from al_leignn.shapes import Float

CUTOFF = 6.0
"""Å."""

CENTRES = np.arange(0.75, CUTOFF, 0.5)
"""Centres of the radial functions, Å."""

WIDTH = 0.35
"""Standard deviation of the radial functions, Å: neighbouring ones overlap at 0.77 of their height."""


def descriptors(frames: Sequence[Frame], species: Sequence[int]) -> Float[np.ndarray, "n d"]:
    """One vector per frame, unchanged by rotation, translation, permutation of atoms and choice of supercell.

    Every atom counts its neighbours of species b in soft shells,
    ``g_ab(c) = sum_j exp(-(r_ij - c)^2 / 2 w^2) (1 + cos(pi r_ij / r_c)) / 2``,
    the radial symmetry functions of Behler & Parrinello (Phys. Rev. Lett. 98, 146401, 2007). The frame's vector holds their
    mean and standard deviation over the atoms of species a, for all ordered pairs (a, b), and the cube root of the volume
    per atom (0 without a three-dimensional cell), Å. Frames with equal pair statistics but different angles look alike.

    Parameters
    ----------
    frames
        With finite coordinates.
    species
        Atomic numbers to describe, the same for all frames that are to be compared.

    Raises
    ------
    ValueError
        If a frame holds a species that is not listed.
    """
    known = sorted(set(species))
    missing = {int(z) for frame in frames for z in frame.atoms.numbers} - set(known)
    if missing:
        raise ValueError(f"atomic numbers {sorted(missing)} are not among the described {known}")
    return np.array([_describe(frame, known) for frame in frames]).reshape(len(frames), 2 * len(known) ** 2 * len(CENTRES) + 1)


def environments(frame: Frame, species: Sequence[int]) -> Float[np.ndarray, "n_atoms d"]:
    """One vector per atom: its soft-shell counts ``g_b(c)`` of neighbours of every species b (see `descriptors`).

    Parameters
    ----------
    species
        Atomic numbers to describe, ascending; all that occur in the frame are among them.
    """
    atoms = frame.atoms
    i, j, r = neighbours(atoms, CUTOFF)
    shells = np.exp(-0.5 * ((r[:, None] - CENTRES) / WIDTH) ** 2) * (0.5 + 0.5 * np.cos(np.pi * r / CUTOFF))[:, None]
    density = np.zeros((len(atoms), len(species), len(CENTRES)))
    np.add.at(density, (i, np.searchsorted(species, atoms.numbers)[j]), shells)
    return density.reshape(len(atoms), len(species) * len(CENTRES))


def _describe(frame: Frame, species: list[int]) -> Float[np.ndarray, " d"]:
    atoms = frame.atoms
    found = environments(frame, species)
    parts = []
    for a in species:
        of_species = found[atoms.numbers == a]
        if len(of_species) == 0:
            of_species = np.zeros((1, found.shape[1]))
        parts += [of_species.mean(axis=0), of_species.std(axis=0)]
    volume = atoms.cell.volume if atoms.cell.rank == 3 else 0.0
    return np.concatenate([*parts, [np.cbrt(volume / len(atoms))]])


def farthest_points(
    points: Float[np.ndarray, "n d"], known: Float[np.ndarray, "m d"], weights: Float[np.ndarray, " n"], k: int
) -> list[int]:
    """Choose at most k points one by one, each time the one with the largest weight times distance.

    The distance is Euclidean, to the nearest point that is known or already chosen. With nothing known the first choice
    is the largest weight. Ties go to the lower index.

    Returns
    -------
    list of int
        Indices into `points` in the order they were chosen.
    """
    nearest = cdist(points, known).min(axis=1) if len(known) else np.ones(len(points))
    chosen: list[int] = []
    open_ = np.ones(len(points), dtype=bool)
    while len(chosen) < min(k, len(points)):
        best = int(np.argmax(np.where(open_, weights * nearest, -np.inf)))
        to_best = cdist(points, points[best : best + 1])[:, 0]
        nearest = np.minimum(nearest, to_best) if chosen or len(known) else to_best
        open_[best] = False
        chosen.append(best)
    return chosen

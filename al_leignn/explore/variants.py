"""Structures made from a structure: defects, surfaces, packings, and atoms pressed together.

Each function draws for ever; who asks keeps what is physical. A draw is an `Atoms` object; lengths are in Å.
"""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import surface
from ase.data import covalent_radii
from ase.geometry import get_distances
from ase.neighborlist import neighbor_list

_TRIALS = 200
"""Random points among which the emptiest is a void."""
_SLAB, _VACUUM = 6.0, 6.0
"""Least thickness of a slab, and empty space on either side of it."""
_PACKED = 0.85
"""Atoms of a packing are at least this share of the sum of their covalent radii apart, if there is room."""
_PACKING_STEPS = 300
_PRESSED = (0.65, 0.85)
"""Two atoms are pressed together to a distance in this range, relative to the sum of their covalent radii."""
_DIMER = (0.7, 1.8)
"""Likewise, for the two atoms of a dimer."""


def vacancies(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """One atom missing."""
    while True:
        found = atoms.copy()
        del found[int(rng.integers(len(atoms)))]
        yield found


def interstitials(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """One atom more, of one of the elements, in a void of the cell (three-dimensional cells only)."""
    while True:
        trials = rng.random((_TRIALS, 3)) @ atoms.cell.array
        _, distances = get_distances(trials, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        found = atoms.copy()
        found.append(str(rng.choice(sorted(set(atoms.symbols)))))
        found.positions[-1] = trials[distances.min(axis=1).argmax()]
        yield found


def antisites(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """Two unlike atoms exchanged (needs two elements)."""
    while True:
        one = int(rng.integers(len(atoms)))
        other = int(rng.choice(np.flatnonzero(atoms.numbers != atoms.numbers[one])))
        found = atoms.copy()
        found.numbers[[one, other]] = found.numbers[[other, one]]
        yield found


def slab(atoms: Atoms, miller: tuple[int, int, int]) -> Atoms:
    """A surface of a crystal between vacuum, not periodic across."""
    layers = 1
    while True:
        found: Atoms = surface(atoms, miller, layers, vacuum=_VACUUM)
        if np.ptp(found.positions[:, 2]) >= _SLAB:
            return found
        layers += 1


def packings(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """The same atoms at random in a cell of the same shape with 0.9 to 1.1 times the volume, pushed apart until they touch.

    It has the density and the neighbour distances of a melt, and no order.
    """
    while True:
        found = atoms.copy()
        found.set_cell(atoms.cell.array * rng.uniform(0.9, 1.1) ** (1.0 / 3.0))
        found.positions = rng.random((len(atoms), 3)) @ found.cell.array
        touch = _PACKED * covalent_radii[found.numbers]
        for _ in range(_PACKING_STEPS):
            i, j, distances, vectors = neighbor_list("ijdD", found, touch)
            if not len(i):
                break
            apart = (distances - touch[i] - touch[j]) / np.maximum(distances, 1e-6)
            np.add.at(found.positions, i, 0.5 * apart[:, None] * vectors)
        yield found


def pressed(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    """An atom and its nearest neighbour pushed towards each other, for the repulsive wall."""
    while True:
        one = int(rng.integers(len(atoms)))
        vectors, distances = get_distances(atoms.positions[one], atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        distances[0, one] = np.inf
        other = int(distances[0].argmin())
        wanted = rng.uniform(*_PRESSED) * covalent_radii[atoms.numbers[[one, other]]].sum()
        push = 0.5 * (1.0 - wanted / distances[0, other]) * vectors[0, other]
        found = atoms.copy()
        found.positions[one] += push
        found.positions[other] -= push
        yield found


def dimers(first: int, second: int, count: int) -> list[Atoms]:
    """Two atoms alone, at distances spread evenly from compressed to stretched bonds."""
    touch = covalent_radii[first] + covalent_radii[second]
    return [
        Atoms([first, second], [[0.0, 0.0, 0.0], [0.0, 0.0, length]])
        for length in np.linspace(*_DIMER, max(count, 2))[:count] * touch
    ]

"""What is cut out holds the surroundings of its atom, whole molecules, and nothing that touches."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from al_leignn.geometry import closest_contact
from al_leignn.select.cutout import VACUUM, cut_out


def water(n: int = 4, spacing: float = 3.1, seed: int = 0) -> Atoms:
    """A loose liquid: n^3 molecules turned at random, one of them across the cell's face."""
    rng = np.random.default_rng(seed)
    box = Atoms(cell=np.full(3, n * spacing), pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(360 * rng.random(), rng.normal(size=3))
        one.positions += spacing * np.array(place) + rng.normal(scale=0.1, size=3)
        box += one
    box.wrap()
    return box


def around(atoms: Atoms, centre: int, radius: float) -> np.ndarray:
    """Sorted distances of all neighbours, by a neighbour list of another library."""
    i, d = neighbor_list("id", atoms, radius)
    return np.sort(d[i == centre])


@pytest.mark.parametrize("kind", ["cluster", "cell"])
def test_surroundings_are_those_of_the_whole(kind: str) -> None:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True) * (5, 5, 5)
    atoms.rattle(0.1, seed=1)
    centre = 3  # at the edge of the cell, so that images are needed
    cut, place = cut_out(atoms, centre, 5.5, kind)  # type: ignore[arg-type]
    assert len(cut) < len(atoms)
    assert cut.numbers[place] == atoms.numbers[centre]
    inside = 5.4 if kind == "cluster" else 3.0  # what is left out of a cell lies at its faces
    assert around(cut, place, inside) == pytest.approx(around(atoms, centre, inside))


@pytest.mark.parametrize("kind", ["cluster", "cell"])
def test_molecules_stay_whole(kind: str) -> None:
    atoms = water()
    for centre in (0, 50, 191):
        cut, place = cut_out(atoms, centre, 4.5, kind)  # type: ignore[arg-type]
        assert len(cut) < len(atoms)
        assert 2 * (cut.numbers == 8).sum() == (cut.numbers == 1).sum()
        i = neighbor_list("i", cut, {("O", "H"): 1.15})
        assert np.bincount(i, minlength=len(cut))[cut.numbers == 8].tolist() == [2] * int((cut.numbers == 8).sum())
        assert cut.numbers[place] == atoms.numbers[centre]


def test_a_cluster_has_vacuum_and_no_images() -> None:
    cut, _ = cut_out(water(), 7, 4.0, "cluster")
    assert not cut.pbc.any()
    assert cut.positions.min() == pytest.approx(VACUUM)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_touches_across_the_faces_of_a_cell(seed: int) -> None:
    cut, place = cut_out(water(seed=seed), 20, 4.2, "cell")
    assert cut.pbc.all()
    assert cut.cell.lengths() == pytest.approx([8.4] * 3)
    assert closest_contact(cut, 0.79) is None
    assert cut.positions[place] == pytest.approx([4.2] * 3)


def test_what_is_no_smaller_is_left_alone() -> None:
    atoms = bulk("Cu", "fcc", a=3.61, cubic=True)
    for kind in ("cluster", "cell"):
        cut, place = cut_out(atoms, 2, 6.0, kind)
        assert cut is atoms
        assert place == 2


def test_a_slab_is_cut_along_its_plane_only() -> None:
    slab = bulk("Cu", "fcc", a=3.61, cubic=True) * (6, 6, 2)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = (True, True, False)
    cut, place = cut_out(slab, 0, 5.0, "cluster")
    assert around(cut, place, 4.9) == pytest.approx(around(slab, 0, 4.9))

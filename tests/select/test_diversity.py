"""Invariances of the description, and the greedy farthest-point rule."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from al_leignn.core import Frame, Origin
from al_leignn.select.diversity import descriptors, farthest_points


def describe(*systems: Atoms) -> np.ndarray:
    species = sorted({int(z) for atoms in systems for z in atoms.numbers})
    return descriptors([Frame.of(atoms, Origin("md")) for atoms in systems], species)


def rattled() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True)
    atoms.rattle(0.2, seed=0)
    return atoms


def test_unchanged_by_permutation_translation_wrapping_and_supercell() -> None:
    atoms = rattled()
    shifted = atoms.copy()
    shifted.positions += [1.0, 2.0, 3.0]
    shuffled = atoms[np.random.default_rng(0).permutation(len(atoms))]
    one, *others = describe(atoms, shifted, shuffled, atoms.repeat((2, 1, 1)))
    for other in others:
        np.testing.assert_allclose(other, one, atol=2e-5)  # frames are rounded to 1e-6 Å


@pytest.mark.parametrize("atoms", [rattled(), molecule("CH3CH2OH")])
def test_unchanged_by_rotation(atoms: Atoms) -> None:
    turn = Rotation.random(rng=np.random.default_rng(1)).as_matrix().T
    turned = Atoms(atoms.numbers, atoms.positions @ turn, cell=np.asarray(atoms.cell) @ turn, pbc=atoms.pbc)
    one, other = describe(atoms, turned)
    np.testing.assert_allclose(other, one, atol=2e-5)


def test_sees_displacement_strain_and_species() -> None:
    atoms = rattled()
    strained, moved, swapped = atoms.copy(), atoms.copy(), atoms.copy()
    strained.set_cell(atoms.cell * 1.02, scale_atoms=True)
    moved.positions[0] += [0.3, 0.0, 0.0]
    swapped.numbers[:2] = swapped.numbers[:2][::-1]
    one, *others = describe(atoms, strained, moved, swapped)
    for other in others:
        assert np.linalg.norm(other - one) > 0.05


def test_frames_without_a_listed_species_are_comparable() -> None:
    both = describe(bulk("Cu", cubic=True), molecule("H2O"))
    assert np.isfinite(both).all()
    with pytest.raises(ValueError, match=r"\[29\]"):
        descriptors([Frame.of(bulk("Cu"), Origin("md"))], [1, 8])


def test_farthest_points_by_hand() -> None:
    line = np.array([[0.0], [1.0], [5.0], [6.0], [10.0]])
    assert farthest_points(line, np.array([[0.0]]), np.ones(5), 3) == [4, 2, 1]  # 10; 5 (tie with none); 1 and 6 tie
    assert farthest_points(line, np.array([[0.0]]), np.array([1.0, 20.0, 1.0, 1.0, 1.0]), 1) == [1]
    assert farthest_points(line, np.zeros((0, 1)), np.array([1.0, 1.0, 2.0, 1.0, 1.0]), 2) == [2, 0]


def test_farthest_points_takes_each_once_and_no_more_than_there_are() -> None:
    same = np.zeros((4, 2))
    assert sorted(farthest_points(same, same, np.ones(4), 10)) == [0, 1, 2, 3]
    assert farthest_points(same, same, np.ones(4), 0) == []
    assert farthest_points(np.zeros((0, 2)), same, np.ones(0), 3) == []

"""Novelty sees what is unlike the training set, whatever a committee says, and in its own units."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from al_leignn.core import Frame, Origin
from al_leignn.select import novelty as module
from al_leignn.select.novelty import novelty

CRYSTAL = bulk("Cu", "fcc", a=3.61, cubic=True) * (2, 2, 2)


def rattled(n: int, width: float, walker: int, atoms: Atoms = CRYSTAL) -> list[Frame]:
    found = []
    for k in range(n):
        moved = atoms.copy()
        moved.rattle(width, seed=100 * walker + k)
        found.append(Frame.of(moved, Origin("md", 1, walker, 10 * k)))
    return found


TRAINING = rattled(12, 0.08, 1) + rattled(12, 0.08, 2)


def test_frames_like_the_training_set_are_not_novel() -> None:
    assert np.mean(novelty(rattled(30, 0.08, 3), TRAINING) < 1) == pytest.approx(0.9, abs=0.15)
    assert (novelty(rattled(10, 0.04, 4), TRAINING) < 1).all()
    assert novelty(TRAINING, TRAINING) == pytest.approx(np.zeros(len(TRAINING)), abs=1e-4)


def test_a_local_fault_in_a_large_cell_is_seen() -> None:
    frames = rattled(5, 0.05, 5)
    for frame in frames:
        frame.atoms.positions[7] += (0.7, 0.0, 0.0)
    assert (novelty(frames, TRAINING) > 1.5).all()


def test_hotter_and_strained_frames_are_novel() -> None:
    strained = CRYSTAL.copy()
    strained.set_cell(1.08 * strained.cell, scale_atoms=True)
    assert (novelty(rattled(5, 0.16, 6), TRAINING) > 1).all()
    assert (novelty(rattled(5, 0.05, 7, strained), TRAINING) > 1).all()


def test_an_element_that_was_never_seen_is_infinitely_novel() -> None:
    doped = CRYSTAL.copy()
    doped.symbols[0] = "Au"
    assert novelty(rattled(2, 0.05, 8, doped), TRAINING).tolist() == [np.inf, np.inf]


def test_turning_and_renumbering_change_nothing() -> None:
    molecule = Atoms("OH2Cu", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [0.4, 0.2, 1.9]])
    training = rattled(6, 0.05, 9, molecule)
    (frame,) = rattled(1, 0.1, 10, molecule)
    turned = frame.atoms[[3, 0, 2, 1]]
    turned.positions = turned.positions @ Rotation.random(rng=np.random.default_rng(0)).as_matrix().T
    both = novelty([frame, Frame.of(turned, frame.origin)], training)
    assert both[0] == pytest.approx(both[1], rel=1e-4)


def test_a_single_trajectory_is_its_own_measure() -> None:
    found = novelty(rattled(20, 0.08, 3), TRAINING[:12])
    assert 0.5 < np.median(found) < 1.5


def test_a_large_training_set_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    full = novelty(rattled(10, 0.08, 3), TRAINING)
    monkeypatch.setattr(module, "MOST_ENVIRONMENTS", 300)
    assert novelty(rattled(10, 0.08, 3), TRAINING) == pytest.approx(full, rel=0.3)


def test_nothing_to_compare_with() -> None:
    assert novelty(TRAINING[:3], []).tolist() == [0.0, 0.0, 0.0]
    assert novelty([], TRAINING).shape == (0,)

"""Laws of the model deviation: units, invariances, and agreement with its definition written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from al_leignn.core import CommitteePrediction
from al_leignn.deviation import deviation, relative

seeds = st.integers(0, 2**32 - 1)


def prediction(forces: np.ndarray, energy: np.ndarray | None = None) -> CommitteePrediction:
    members, atoms, _ = forces.shape
    energy = np.zeros(members) if energy is None else energy
    return CommitteePrediction(energy=energy, forces=forces, stress=None, node_energy=np.zeros((members, atoms)))


def drawn(seed: int) -> CommitteePrediction:
    rng = np.random.default_rng(seed)
    members, atoms = rng.integers(2, 6), rng.integers(1, 8)
    return prediction(rng.normal(size=(members, atoms, 3)), rng.normal(size=members))


def test_definition_by_hand() -> None:
    # Two members, one atom, forces 6 Å apart along (2, 1, 2) / 3: each is 3 from the mean.
    forces = np.array([[[4.0, 2.0, 4.0]], [[0.0, 0.0, 0.0]]])
    found = deviation(prediction(forces, np.array([1.0, 5.0])))
    assert found.per_atom == pytest.approx([3.0])
    assert found.max == pytest.approx(3.0)
    assert found.energy == pytest.approx(2.0)


@given(seeds, st.floats(0.1, 100))
def test_scales_with_the_forces(seed: int, factor: float) -> None:
    one = drawn(seed)
    scaled = deviation(prediction(factor * one.forces, factor * one.energy))
    np.testing.assert_allclose(scaled.per_atom, factor * deviation(one).per_atom)
    assert scaled.energy == pytest.approx(factor * deviation(one).energy)


@given(seeds)
def test_unchanged_by_repeating_the_members(seed: int) -> None:
    one = drawn(seed)
    twice = deviation(prediction(np.concatenate([one.forces, one.forces]), np.concatenate([one.energy, one.energy])))
    np.testing.assert_allclose(twice.per_atom, deviation(one).per_atom)
    assert twice.energy == pytest.approx(deviation(one).energy)


@given(seeds)
def test_unchanged_by_rotation_and_by_a_common_force(seed: int) -> None:
    one = drawn(seed)
    turned = one.forces @ Rotation.random(rng=np.random.default_rng(seed)).as_matrix().T + np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(deviation(prediction(turned, one.energy)).per_atom, deviation(one).per_atom)


def test_identical_members_deviate_by_nothing() -> None:
    forces = np.repeat(np.random.default_rng(0).normal(size=(1, 4, 3)), 3, axis=0)
    assert deviation(prediction(forces)).max < 1e-12


def test_energy_is_per_atom() -> None:
    energy = np.array([0.0, 2.0])
    assert deviation(prediction(np.zeros((2, 10, 3)), energy)).energy == pytest.approx(0.1)


def test_single_precision_members_are_averaged_in_double() -> None:
    forces = np.array([[[1e4, 0, 0]], [[1e4 + 1e-2, 0, 0]]])
    exact = deviation(prediction(forces.astype(np.float32).astype(np.float64))).max
    assert deviation(prediction(forces.astype(np.float32))).max == pytest.approx(exact, rel=1e-12)


def test_nan_is_not_hidden() -> None:
    forces = np.zeros((2, 3, 3))
    forces[1, 2, 0] = np.nan
    assert np.isnan(deviation(prediction(forces)).max)


def test_mean_force_is_that_of_the_mean() -> None:
    forces = np.array([[[4.0, 0.0, 0.0]], [[0.0, 2.0, 0.0]]])
    assert deviation(prediction(forces)).mean_force == pytest.approx([np.sqrt(5.0)])


@given(seeds, st.floats(0.1, 10))
def test_relative_criterion(seed: int, scale: float) -> None:
    found = deviation(drawn(seed))
    judged = relative(found.per_atom, found.mean_force, scale)
    assert (judged <= found.per_atom).all()
    np.testing.assert_allclose(relative(found.per_atom, np.full_like(found.per_atom, scale), scale), found.per_atom / 2)
    np.testing.assert_allclose(relative(found.per_atom, found.mean_force, 1e12), found.per_atom, rtol=1e-9)
    assert relative(found.per_atom, found.mean_force, None) is found.per_atom

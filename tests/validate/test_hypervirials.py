"""Hypervirials: their definition by finite differences, their mean, and how much noise of energies they explain."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from numpy.typing import NDArray

from al_leignn.units import KB
from al_leignn.validate.hypervirials import FUNCTIONS, Hypervirials, configurational_temperature, hypervirials
from al_leignn.validate.trajectory import Trajectory

LATTICE = bulk("Cu", "fcc", a=3.6, cubic=True).repeat((2, 1, 1))
STIFFNESS = 2.0
"""eV/Å^2, of springs that tie atoms to their sites."""


def frames(positions: NDArray[np.float64], forces: NDArray[np.float64]) -> Trajectory:
    return Trajectory(
        name="frames",
        numbers=LATTICE.numbers,
        pbc=LATTICE.pbc,
        cells=np.tile(np.asarray(LATTICE.cell), (len(positions), 1, 1)),
        positions=positions,
        interval_fs=1.0,
        forces=forces,
    )


def canonical(temperature: float, count: int) -> Trajectory:
    """Independent frames of atoms on springs."""
    moved = np.sqrt(KB * temperature / STIFFNESS) * np.random.default_rng(0).standard_normal((count, len(LATTICE), 3))
    found = frames(LATTICE.positions + moved, -STIFFNESS * moved)
    return replace(found, energies=0.5 * STIFFNESS * np.square(moved).sum(axis=(1, 2)))


def sums(trajectory: Trajectory) -> Hypervirials:
    found = hypervirials(trajectory)
    assert found is not None
    return found


def test_definition_by_finite_differences() -> None:
    """Both sums from fields that forces of one component at a time read off, in a cell narrower than twice the cutoff."""
    rng = np.random.default_rng(1)
    positions = LATTICE.positions + 0.2 * rng.standard_normal(LATTICE.positions.shape)
    size, step = positions.size, 1e-4

    def field(where: NDArray[np.float64]) -> NDArray[np.float64]:
        unit = np.eye(size).reshape(size, -1, 3)
        return np.asarray(sums(frames(np.tile(where, (size, 1, 1)), unit)).work * len(LATTICE))

    divergence = np.zeros(FUNCTIONS)
    for n in range(size):
        moved = np.zeros(size)
        moved[n] = step
        moved = moved.reshape(positions.shape)
        divergence += (field(positions + moved)[n] - field(positions - moved)[n]) / (2 * step)
    forces = rng.standard_normal(positions.shape)
    expected = forces.ravel() @ field(positions) + KB * 500.0 * divergence
    assert sums(frames(positions[None], forces[None])).at(500.0)[0] * len(LATTICE) == pytest.approx(expected, rel=1e-5)


def test_mean_is_zero_at_the_temperature_of_the_frames_only() -> None:
    crystal = canonical(600.0, 1500)
    found = sums(crystal)

    def errors(temperature: float) -> NDArray[np.float64]:
        known = found.at(temperature)
        return np.asarray(np.abs(known.mean(axis=0)) / (known.std(axis=0) / np.sqrt(len(known))))

    assert errors(600.0).max() < 4
    assert errors(700.0).max() > 10
    told = configurational_temperature(found)
    assert told is not None
    assert abs(told[0] - 600.0) < 4 * told[1] < 0.1 * 600.0
    assert hypervirials(replace(crystal, driven=False)) is hypervirials(replace(crystal, forces=None)) is None


def test_they_explain_much_of_the_noise_of_the_energy() -> None:
    crystal = canonical(600.0, 1000)
    assert crystal.energies is not None
    known = sums(crystal).at(600.0)
    noise = crystal.energies - crystal.energies.mean()
    left = noise - known @ np.linalg.lstsq(known, noise, rcond=None)[0]
    assert left.std() < 0.6 * noise.std()

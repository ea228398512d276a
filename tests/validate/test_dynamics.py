"""Motion against processes solved by hand: free flight, random walk, Langevin particles, oscillators; and published AIMD."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from al_leignn.errors import InputError
from al_leignn.validate.dynamics import diffusion, mean_squared_displacement, vibrations
from al_leignn.validate.statistics import Blocks
from al_leignn.validate.trajectory import Trajectory, read_trajectory, trajectory


def in_wide_cell(
    positions: NDArray[np.float64], interval_fs: float, velocities: NDArray[np.float64] | None = None, *, periodic: bool = True
) -> Trajectory:
    frames, atoms = positions.shape[:2]
    cells = np.broadcast_to(1e6 * np.eye(3), (frames, 3, 3))
    return Trajectory("free", np.full(atoms, 18), np.full(3, periodic), cells, positions, interval_fs, velocities=velocities)


def test_free_flight() -> None:
    """<r²> = <v²> t², whatever the centre of mass does."""
    rng = np.random.default_rng(0)
    velocities = rng.normal(size=(30, 3)) * 0.01
    times = 2.0 * np.arange(100)
    positions = times[:, None, None] * (velocities + np.array([0.1, 0.0, -0.2]))
    lags = np.array([0.002, 0.02, 0.1])
    msd = mean_squared_displacement(in_wide_cell(positions, 2.0), lags)[18]
    squares = np.square(velocities - velocities.mean(axis=0)).sum(axis=1).mean()
    assert msd.series == pytest.approx(np.broadcast_to(squares * (1000 * lags) ** 2, msd.series.shape))


def test_a_wrapped_random_walk_diffuses_as_it_must() -> None:
    """D = s²/2Δt from wrapped positions in a sheared cell; drift of the centre of mass takes off 1/N of it."""
    rng = np.random.default_rng(1)
    cell = np.array([[6.0, 0, 0], [2.0, 6.0, 0], [1.0, -1.0, 6.0]])
    atoms, step, fs = 40, 0.3, 10.0
    walk = np.cumsum(step * rng.standard_normal((3000, atoms, 3)), axis=0)
    images = [Atoms(f"Ar{atoms}", frame, cell=cell, pbc=True) for frame in walk]
    for image in images:
        image.wrap()
    found = trajectory(images, "walk", interval_fs=fs)
    assert np.allclose(np.diff(found.positions, axis=0), np.diff(walk, axis=0))
    lags = fs / 1000 * np.arange(5, 15)
    d = diffusion(mean_squared_displacement(found, lags)[18])
    expected = step**2 / (2 * fs) * (1 - 1 / atoms) / 1e-4  # 1 Å²/fs = 0.1 cm²/s
    (error,) = Blocks.of(d.series).error()
    assert error < 0.05 * expected
    assert d.series.mean() == pytest.approx(expected, abs=4 * error)


def test_a_molecule_in_open_space_is_turned_back() -> None:
    """A tumbling tetrahedron that breathes moves by its breathing alone; its mirror image is another position."""
    rng = np.random.default_rng(4)
    corners = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    breathing = 1 + 0.1 * np.sin(np.arange(60))
    turns = Rotation.random(60, random_state=rng).as_matrix()
    positions = np.einsum("f,fxy,ay->fax", breathing, turns, corners) + rng.normal(size=(60, 1, 3))
    msd = mean_squared_displacement(in_wide_cell(positions, 1.0, periodic=False), np.array([0.001, 0.01]))[18]
    for k, lag in enumerate((1, 10)):
        assert msd.series[:, k] == pytest.approx(3 * np.square(breathing[lag:] - breathing[:-lag])[: len(msd.series)], abs=1e-12)
    lopsided = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    mirrored = np.array([lopsided, -lopsided] * 5)
    assert mean_squared_displacement(in_wide_cell(mirrored, 1.0, periodic=False), np.array([0.001]))[18].series.min() > 0.1


def langevin(rng: np.random.Generator, atoms: int, frames: int, dt: float, friction: float, speed: float) -> NDArray[np.float64]:
    """Velocities of free Langevin particles (Ornstein-Uhlenbeck process, exact steps)."""
    decay = np.exp(-friction * dt)
    velocities = np.empty((frames, atoms, 3))
    velocities[0] = speed * rng.standard_normal((atoms, 3))
    for n in range(1, frames):
        velocities[n] = decay * velocities[n - 1] + speed * np.sqrt(1 - decay**2) * rng.standard_normal((atoms, 3))
    return velocities


def test_langevin_particles() -> None:
    """MSD and D = kT/mγ of the Ornstein-Uhlenbeck process, from positions integrated finely; spectrum of velocities."""
    rng = np.random.default_rng(2)
    dt, friction, speed, atoms = 5.0, 0.01, 0.02, 100
    velocities = langevin(rng, atoms, 8000, dt, friction, speed)
    positions = np.cumsum(velocities, axis=0) * dt
    found = in_wide_cell(positions, dt, velocities)
    lags = np.array([0.05, 0.2, 0.5, 0.6, 0.7, 0.8])
    msd = mean_squared_displacement(found, lags)[18]
    t = 1000 * lags
    theory = 6 * speed**2 / friction**2 * (friction * t - 1 + np.exp(-friction * t)) * (1 - 1 / atoms)
    assert (np.abs(msd.series.mean(axis=0) - theory) < 4 * Blocks.of(msd.series).error() + 0.002 * theory).all()
    late = diffusion(msd._replace(series=msd.series[:, 2:], grid=msd.grid[2:]))
    (error,) = Blocks.of(late.series).error()
    expected = speed**2 / friction / 1e-4 * (1 - 1 / atoms)
    assert error < 0.1 * expected
    assert late.series.mean() == pytest.approx(expected, abs=4 * error)
    nu = np.arange(0.25, 20, 0.25)
    spectrum = vibrations(found, nu, 2.0, from_velocities=True)[18].series.mean(axis=0)
    lorentz = 1 / (friction**2 + (2e-3 * np.pi * nu) ** 2)
    assert spectrum == pytest.approx(lorentz / lorentz.sum() / 0.25, rel=0.15, abs=0.003)


@pytest.mark.parametrize("from_velocities", [True, False])
def test_an_oscillator_sounds_at_its_frequency(from_velocities: bool) -> None:
    """Half of the atoms at 5 THz and half at 31, with equal kinetic energy: peaks where they belong, with equal areas."""
    rng = np.random.default_rng(3)
    dt, atoms = 10.0, 40
    nu = np.where(np.arange(atoms) < atoms // 2, 0.005, 0.031)[:, None]  # 1/fs
    phase = 2 * np.pi * rng.random((atoms, 3))
    t = dt * np.arange(2000)[:, None, None]
    omega = 2 * np.pi * nu
    found = in_wide_cell(np.sin(omega * t + phase) / omega, dt, np.cos(omega * t + phase))
    grid = np.arange(0.25, 40, 0.25)
    spectrum = vibrations(found, grid, 2.0, from_velocities=from_velocities)[18].series.mean(axis=0)
    low, high = (np.abs(grid - peak) < 2 for peak in (5.0, 31.0))
    assert np.sum(spectrum) * 0.25 == pytest.approx(1.0)
    assert grid[spectrum.argmax()] in (5.0, 31.0)
    assert grid[low][spectrum[low].argmax()] == 5.0
    assert grid[high][spectrum[high].argmax()] == 31.0
    assert spectrum[low].sum() == pytest.approx(spectrum[high].sum(), rel=0.02)
    assert spectrum[~low & ~high].sum() * 0.25 < 0.01


def test_times_that_frames_do_not_have_are_refused() -> None:
    found = in_wide_cell(np.zeros((50, 2, 3)), 3.0)
    with pytest.raises(InputError, match="no multiples of 3 fs"):
        mean_squared_displacement(found, np.array([0.005]))
    with pytest.raises(InputError, match="shorter than"):
        mean_squared_displacement(found, np.array([0.3]))
    with pytest.raises(InputError, match="window of 1 ps"):
        vibrations(found, np.array([1.0, 2.0]), 1.0, from_velocities=False)


@pytest.mark.parametrize(
    ("kind", "published", "coefficient"),
    [("0p", (1.89, 5.01, 7.44, 10.17, 11.09), 4.7e-6), ("50p", (1.70, 5.27, 9.20, 15.95, 22.78), 1.15e-5)],
)
def test_displacements_of_published_aimd(
    reference_data: Path, kind: str, published: tuple[float, ...], coefficient: float
) -> None:
    """Li in Li6PS5Cl at 500 K, 416 atoms, 70 ps, wrapped: numbers of its README (made with the drift of the framework)."""
    file = reference_data / "argyrodite_aimd" / f"Li6PS5Cl_{kind}_500K.extxyz.xz"
    if not file.exists():
        pytest.skip(f"no {file}")
    aimd = read_trajectory(file, interval_fs=100.0)
    msd = mean_squared_displacement(aimd, np.array([1.0, 5, 10, 20, 30]))[3]
    assert msd.series.mean(axis=0) == pytest.approx(published, rel=0.04)
    d = diffusion(mean_squared_displacement(aimd, np.arange(5.0, 25.01, 0.5))[3])
    assert 1e-5 * d.series.mean() == pytest.approx(coefficient, rel=0.05)

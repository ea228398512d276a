"""Motion in a trajectory: mean squared displacement, diffusion, spectrum of vibrations.

Each is a series over time whose mean is the observable (see `equivalence.Observable`).
"""

from collections.abc import Sequence

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.geometry import get_distances

from al_leignn.errors import InputError
from al_leignn.shapes import Float, Int
from al_leignn.units import CM2_S
from al_leignn.validate.equivalence import Observable
from al_leignn.validate.trajectory import Trajectory

ORIGINS = 1000
"""Time origins, evenly spread; more are correlated anyway."""

LAG_MATCH = 0.02
"""Relative difference between a lag asked for and the nearest multiple of the time between frames."""

NYQUIST_SHARE = 0.8
"""Of the highest frequency that frames can show; above it, velocities from positions are damped too much to be mended."""


def mean_squared_displacement(
    trajectory: Trajectory, lags_ps: Float[np.ndarray, " lags"], *, origins: int = ORIGINS
) -> dict[int, Observable]:
    """Mean squared displacement of each species after the given times, Å^2, relative to the centre of mass.

    Of a molecule or cluster in open space, displacements within it: each time it is first turned to where it was (least
    mass-weighted squares; Kabsch, Acta Cryst. A 32, 922 (1976)). How far it turns is up to the thermostat, not to its potential.
    The series runs over time origins; overlapping ones are correlated, which the block length accounts for.

    Raises
    ------
    InputError
        If a lag is no multiple of the time between frames, or longer than the trajectory.
    """
    lags = _in_frames(trajectory, lags_ps)
    positions = trajectory.without_drift()
    last = len(positions) - int(lags.max())
    starts = np.arange(0, last, -(-last // origins))
    moved = np.empty((len(starts), len(lags), len(trajectory.numbers)))
    for k, lag in enumerate(lags):
        then, now = positions[starts], positions[starts + lag]
        if not trajectory.pbc.any():
            now = _turned(now, then, atomic_masses[trajectory.numbers])
        moved[:, k] = np.square(now - then).sum(axis=2)
    step = 1 if len(starts) < 2 else int(starts[1])
    return {
        z: Observable(
            f"MSD {chemical_symbols[z]}",
            "msd",
            moved[:, :, trajectory.numbers == z].mean(axis=2),
            step * trajectory.interval_fs / 1000.0,
            "Å²",
            np.asarray(lags_ps, dtype=float),
            "time (ps)",
        )
        for z in trajectory.species
    }


def _turned(
    now: Float[np.ndarray, "frames atoms 3"], then: Float[np.ndarray, "frames atoms 3"], weights: Float[np.ndarray, " atoms"]
) -> Float[np.ndarray, "frames atoms 3"]:
    """Positions turned about the origin to be as near as they can to earlier ones."""
    left, _, right = np.linalg.svd(np.einsum("a,fax,fay->fxy", weights, then, now))
    left[..., -1] *= np.sign(np.linalg.det(left @ right))[:, None]  # no reflections
    return np.asarray(now @ np.swapaxes(left @ right, 1, 2))


def diffusion(msd: Observable) -> Observable:
    """Self-diffusion coefficient D = slope / 6 of a straight line through the mean squared displacements, 1e-5 cm²/s.

    That is the coefficient of diffusion where displacements have become linear in time; at shorter times it is just another
    number that describes the motion, and as fit for comparing two simulations.
    """
    fs = 1000.0 * (msd.grid - msd.grid.mean())
    slopes = msd.series @ fs / (fs @ fs)
    values = slopes[:, None] / (6.0 * CM2_S * 1e-5)
    return Observable(msd.name.replace("MSD", "diffusion"), "diffusion", values, msd.interval_ps, "1e-5 cm²/s", np.zeros(1))


def at_rest(trajectory: Trajectory) -> set[int]:
    """Species none of whose atoms diffuses: each is always nearer to its mean position than half the way to the nearest other.

    So are all atoms of a molecule or cluster in open space, which has nowhere to diffuse to.
    """
    if not trajectory.pbc.any():
        return set(trajectory.species)
    positions = trajectory.without_drift()
    sites = positions.mean(axis=0)
    _, apart = get_distances(sites, cell=trajectory.cells.mean(axis=0), pbc=trajectory.pbc)
    np.fill_diagonal(apart, np.inf)
    stays = np.linalg.norm(positions - sites, axis=2).max(axis=0) < apart.min(axis=0) / 2
    return {z for z in trajectory.species if stays[trajectory.numbers == z].all()}


def vibrations(
    trajectory: Trajectory, frequencies: Float[np.ndarray, " bins"], window_ps: float, *, from_velocities: bool
) -> dict[int, Observable]:
    """Vibrational density of states of each species: power spectrum of its velocities, normalised to 1 over THz.

    Mean over windows (Hann's, half overlapping, each normalised), all atoms and directions, relative to the centre of mass
    (Welch, IEEE Trans. Audio Electroacoust. 15, 70 (1967)). Without velocities they are differences of positions between
    frames, whose known damping, sin²(πνΔt)/(πνΔt)², is divided out.

    Parameters
    ----------
    frequencies
        Evenly spaced, THz, up to `NYQUIST_SHARE` of 1/2Δt.
    window_ps
        The resolution is 2/window, the full width at half maximum that the window gives to a sharp line.

    Raises
    ------
    InputError
        If the trajectory is shorter than a window, or has no velocities where they are asked for.
    """
    dt = trajectory.interval_fs / 1000.0
    if from_velocities:
        if trajectory.velocities is None:
            raise InputError("the trajectory has no velocities", where=trajectory.name)
        weights = atomic_masses[trajectory.numbers] / atomic_masses[trajectory.numbers].sum()
        velocities = trajectory.velocities - np.einsum("a,fax->fx", weights, trajectory.velocities)[:, None]
        damping = np.ones(len(frequencies))
    else:
        velocities = np.diff(trajectory.without_drift(), axis=0)
        damping = np.sinc(frequencies * dt) ** 2
    size = round(window_ps / dt)
    if size < 4 or len(velocities) < size:
        raise InputError(f"a window of {window_ps:g} ps does not fit into the trajectory", where=trajectory.name)
    times = dt * np.arange(size)
    waves = np.hanning(size)[:, None] * np.exp(-2j * np.pi * times[:, None] * frequencies)
    spacing = float(frequencies[1] - frequencies[0])
    starts = range(0, len(velocities) - size + 1, size // 2)
    series = {z: np.zeros((len(starts), len(frequencies))) for z in trajectory.species}
    for row, start in enumerate(starts):
        part = velocities[start : start + size]
        for z, values in series.items():
            motion = part[:, trajectory.numbers == z].reshape(size, -1)
            power = np.square(np.abs(waves.T @ motion)).sum(axis=1) / damping
            values[row] = power / ((power.sum() * spacing) or 1.0)
    return {
        z: Observable(
            f"vibrations {chemical_symbols[z]}", "vdos", values, starts.step * dt, "1/THz", frequencies, "frequency (THz)"
        )
        for z, values in series.items()
    }


def highest_frequency(trajectories: Sequence[Trajectory]) -> float:
    """What frames of all of them can show, THz."""
    return NYQUIST_SHARE * min(500.0 / trajectory.interval_fs for trajectory in trajectories)


def _in_frames(trajectory: Trajectory, lags_ps: Float[np.ndarray, " lags"]) -> Int[np.ndarray, " lags"]:
    exact = np.asarray(lags_ps) * 1000.0 / trajectory.interval_fs
    lags = np.rint(exact).astype(int)
    if lags.min() < 1 or (np.abs(lags - exact) > LAG_MATCH * exact).any():
        raise InputError(
            f"times of {', '.join(f'{lag:g}' for lag in lags_ps)} ps are no multiples of {trajectory.interval_fs:g} fs",
            where=trajectory.name,
            fix="save frames of both simulations at multiples of one time",
        )
    if lags.max() >= len(trajectory):
        raise InputError(f"the trajectory is shorter than {max(lags_ps):g} ps", where=trajectory.name)
    return lags

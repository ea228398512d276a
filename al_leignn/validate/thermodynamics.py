"""What frames of a trajectory say of energy, pressure, density and forces.

Each is a series over frames whose mean is the observable (see `equivalence.Observable`).
"""

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from al_leignn.shapes import Float
from al_leignn.units import G_CM3, GPA
from al_leignn.validate.equivalence import Observable
from al_leignn.validate.trajectory import Trajectory

FORCE_BINS = 10
"""More would show little more and add noise: of what forces larger by 5 % change in a Maxwell distribution, 10 bins show 97 %."""

TAIL = 0.999
"""Quantile of the forces at which the last bin but one ends, times 1.2; the last takes whatever is larger."""


def thermodynamics(trajectory: Trajectory) -> list[Observable]:
    """Potential energy (eV/atom), pressure of the potential (GPa; without the ideal-gas part) and, in a cell that breathes,
    density (g/cm³): those that the trajectory has.
    """
    found = []
    if trajectory.energies is not None:
        found.append(_number(trajectory, "potential energy", "energy", trajectory.energies / len(trajectory.numbers), "eV/atom"))
    if trajectory.stresses is not None:
        pressures = -trajectory.stresses[:, :3].mean(axis=1) / GPA
        found.append(_number(trajectory, "pressure of the potential", "pressure", pressures, "GPa"))
    if not trajectory.fixed_cell:
        mass = float(atomic_masses[trajectory.numbers].sum()) / G_CM3
        found.append(_number(trajectory, "density", "density", mass / np.abs(np.linalg.det(trajectory.cells)), "g/cm³"))
    return found


def force_sizes(trajectory: Trajectory, *, like: Trajectory) -> list[Observable]:
    """Distribution of the size of the force on atoms of each species, 1 over eV/Å, in bins that fit the forces of `like`."""
    if trajectory.forces is None or like.forces is None:
        return []
    found = []
    for z in trajectory.species:
        top = 1.2 * float(np.quantile(np.linalg.norm(like.forces[:, like.numbers == z], axis=2), TAIL)) or 1.0
        edges = np.linspace(0.0, top, FORCE_BINS + 1)
        sizes = np.minimum(np.linalg.norm(trajectory.forces[:, trajectory.numbers == z], axis=2), np.nextafter(top, 0.0))
        series = np.array([np.histogram(frame, edges)[0] for frame in sizes]) / (sizes.shape[1] * edges[1])
        middle = 0.5 * (edges[1:] + edges[:-1])
        name = f"forces on {chemical_symbols[z]}"
        found.append(Observable(name, "forces", series, _interval(trajectory), "Å/eV", middle, "force (eV/Å)"))
    return found


def _number(trajectory: Trajectory, name: str, kind: str, values: Float[np.ndarray, " frames"], unit: str) -> Observable:
    return Observable(name, kind, values[:, None], _interval(trajectory), unit, np.zeros(1))


def _interval(trajectory: Trajectory) -> float:
    return trajectory.interval_fs / 1000.0

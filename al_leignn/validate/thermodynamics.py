"""What frames of a trajectory say of energy, pressure, density and forces.

Each is a series over frames whose mean is the observable (see `equivalence.Observable`).
"""

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from al_leignn.shapes import Float
from al_leignn.units import G_CM3, GPA
from al_leignn.validate.equivalence import Observable
from al_leignn.validate.trajectory import Trajectory

FORCE_POINTS = 50
"""Sizes at which it is counted how many forces are larger."""

HEADROOM = 1.2
"""The last of them over the largest force of the reference."""


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
    """For each species, the share of its atoms on which the force is larger than f, over sizes f that occur in `like`.

    Its integral over f is the mean size of the force, and the area between two such curves is by how much forces must change, on
    average, to turn one distribution into the other (the earth mover's distance).
    """
    if trajectory.forces is None or like.forces is None:
        return []
    found = []
    for z in trajectory.species:
        top = HEADROOM * float(np.linalg.norm(like.forces[:, like.numbers == z], axis=2).max()) or 1.0
        grid = (np.arange(FORCE_POINTS) + 0.5) * top / FORCE_POINTS
        sizes = np.linalg.norm(trajectory.forces[:, trajectory.numbers == z], axis=2)
        series = np.array([np.mean(frame[:, None] > grid, axis=0) for frame in sizes])
        found.append(
            Observable(f"forces on {chemical_symbols[z]}", "forces", series, _interval(trajectory), "", grid, "force (eV/Å)")
        )
    return found


def _number(trajectory: Trajectory, name: str, kind: str, values: Float[np.ndarray, " frames"], unit: str) -> Observable:
    return Observable(name, kind, values[:, None], _interval(trajectory), unit, np.zeros(1))


def _interval(trajectory: Trajectory) -> float:
    return trajectory.interval_fs / 1000.0

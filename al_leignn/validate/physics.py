"""Physics gates: laws that a potential must obey before its errors are worth quoting.

They take any ASE calculator. Give it in double precision where it has one: finite differences of a float32 total energy
measure rounding, not physics. The atoms passed in are never changed.
"""

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols, covalent_radii
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from al_leignn.units import FS, MEV

DRIFT_LIMIT = 2.0
"""meV/atom/ps."""

CONSISTENCY_LIMIT = 0.02
"""Relative to the rms force component, beside `CONSISTENCY_FLOOR`."""

CONSISTENCY_FLOOR = 2e-3
"""eV/Å."""

WALL_FROM, WALL_TO = 0.75, 0.6
"""Range of pair distances, in sums of covalent radii, over which the energy must rise. Shorter than any bond (C≡O is 0.79);
frames below 0.6 are not labelled by default."""


@dataclass(frozen=True)
class Gate:
    """One law tried on one potential."""

    name: str
    value: float
    limit: float
    unit: str
    passed: bool
    detail: str = ""
    """What the value refers to, where that is not plain."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: a value that is not finite becomes null."""
        return asdict(self) | {"value": self.value if math.isfinite(self.value) else None}


def nve_drift(
    atoms: Atoms,
    calculator: BaseCalculator,
    rng: np.random.Generator,
    *,
    temperature: float = 300.0,
    steps: int = 500,
    timestep_fs: float = 1.0,
    limit: float = DRIFT_LIMIT,
) -> Gate:
    """Drift of the total energy in NVE, meV/atom/ps: absolute slope of a straight line through its later four fifths.

    The first fifth is left out: there the kinetic energy spreads into the potential energy, and with it the harmless
    offset of the integrator's own conserved energy.

    Parameters
    ----------
    temperature
        Of the Maxwell-Boltzmann velocities at the start, K; about half of it remains.
    steps, timestep_fs
        Velocity Verlet steps and their length, fs.
    """
    system = _copy(atoms, calculator)
    MaxwellBoltzmannDistribution(system, temperature_K=temperature, rng=rng)
    Stationary(system)
    dynamics = VelocityVerlet(system, timestep=timestep_fs * FS)
    energies = np.empty(steps)
    for step in range(steps):
        dynamics.run(1)
        energies[step] = system.get_total_energy() / len(system)
        if not math.isfinite(energies[step]):
            return Gate("nve drift", math.inf, limit, "meV/atom/ps", False, f"energy not finite after {step + 1} steps")
    later = slice(steps // 5, None)
    ps = np.arange(steps) * timestep_fs * 1e-3
    drift = abs(float(np.polyfit(ps[later], energies[later], 1)[0])) / MEV
    return Gate("nve drift", drift, limit, "meV/atom/ps", drift <= limit)


def force_consistency(
    atoms: Atoms, calculator: BaseCalculator, rng: np.random.Generator, *, directions: int = 4, step: float = 0.01
) -> Gate:
    """Largest difference between the force and -dE/dx along random directions of all coordinates, eV/Å.

    Fourth-order central difference; `step` is the length of the displacement in the space of all coordinates, Å.
    """
    system = _copy(atoms, calculator)
    start = system.get_positions()
    forces = system.get_forces()

    def energy(displacement: np.ndarray) -> float:
        system.set_positions(start + displacement)
        return float(system.get_potential_energy())

    worst = 0.0
    for _ in range(directions):
        unit = rng.standard_normal(start.shape)
        unit *= step / np.linalg.norm(unit)
        slope = (8 * (energy(unit) - energy(-unit)) - (energy(2 * unit) - energy(-2 * unit))) / (12 * step)
        difference = abs(slope + float(np.sum(forces * unit)) / step)
        worst = max(worst, difference) if math.isfinite(difference) else math.inf
    limit = CONSISTENCY_FLOOR + CONSISTENCY_LIMIT * float(np.sqrt(np.mean(forces**2)))
    return Gate("force consistency", worst, limit, "eV/Å", worst <= limit)


def repulsive_wall(atoms: Atoms, calculator: BaseCalculator, *, points: int = 6) -> Gate:
    """Whether the energy rises, eV, whenever two neighbours are pushed together.

    For each pair of species that touch in `atoms` (closer than 1.5 sums of covalent radii), the closest such pair is
    compressed along its axis, in place among its neighbours, through `points` distances from `WALL_FROM` to `WALL_TO` sums
    of covalent radii. The value is the smallest rise between successive distances.
    """
    lowest, where = math.inf, "no two atoms are neighbours"
    for i, j, axis in _closest_pairs(atoms):
        length = float(np.linalg.norm(axis))
        touch = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
        energies = []
        for distance in np.linspace(WALL_FROM, WALL_TO, points) * touch:
            system = _copy(atoms, calculator)
            push = 0.5 * (1 - distance / length) * axis
            system.positions[i] += push
            system.positions[j] -= push
            energies.append(float(system.get_potential_energy()))
        rise = float(np.min(np.diff(energies)))
        if not rise >= lowest:  # NaN counts as the worst
            lowest = rise if math.isfinite(rise) else -math.inf
            where = f"{chemical_symbols[atoms.numbers[i]]}-{chemical_symbols[atoms.numbers[j]]}"
    return Gate("repulsive wall", lowest, 0.0, "eV", lowest > 0.0, where)


def _closest_pairs(atoms: Atoms) -> list[tuple[int, int, np.ndarray]]:
    """For each pair of touching species: the closest two atoms and the vector from the first to the second, Å."""
    first, second, axes, distances = neighbor_list("ijDd", atoms, 1.5 * covalent_radii[atoms.numbers])
    pairs = []
    for a, b in itertools.combinations_with_replacement(sorted(set(atoms.numbers.tolist())), 2):
        # An atom cannot be pushed towards its own image.
        these = np.flatnonzero((atoms.numbers[first] == a) & (atoms.numbers[second] == b) & (first != second))
        if len(these):
            k = these[np.argmin(distances[these])]
            pairs.append((int(first[k]), int(second[k]), axes[k]))
    return pairs


def _copy(atoms: Atoms, calculator: BaseCalculator) -> Atoms:
    system = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    system.calc = calculator
    return system

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
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list
from scipy.stats import linregress

from al_leignn.units import FS, KB, MEV

DRIFT_LIMIT = 2.0
"""meV/atom/ps."""

DRIFT_BLOCKS = 10
"""Parts of the trajectory whose mean energies are fitted."""

CONSISTENCY_LIMIT = 0.02
"""Relative to the rms force component, beside `CONSISTENCY_FLOOR`."""

CONSISTENCY_FLOOR = 2e-3
"""eV/Å."""

EXTENSIVITY_LIMIT = 1e-4
"""eV/atom."""

FAR_APART = 20.0
"""Å. Farther than any potential here reaches."""

WALL_FROM, WALL_TO = 0.75, 0.6
"""Range of pair distances, in sums of covalent radii, over which the energy must rise. Shorter than any bond (C≡O is 0.79);
frames below 0.6 are not labelled by default."""

WALL_REACH = 2.0
"""Atoms up to this many sums of covalent radii apart are pushed together."""


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
        """JSON-safe: numbers that are not finite become null."""
        numbers = {"value": self.value, "limit": self.limit}
        return asdict(self) | {name: number if math.isfinite(number) else None for name, number in numbers.items()}


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
    """Drift of the total energy in NVE, meV/atom/ps: absolute slope of a straight line through block means.

    The first fifth is left out: there the kinetic energy spreads into the potential energy, and with it the harmless
    offset of the integrator's own conserved energy. The gate fails when the slope exceeds the limit by more than twice its
    standard error, since the energy of a few atoms oscillates without drifting.

    Parameters
    ----------
    temperature
        Of the Maxwell-Boltzmann velocities at the start, K; about half of it remains.
    steps, timestep_fs
        Velocity Verlet steps (at least 20) and their length, fs.

    Raises
    ------
    ValueError
        For fewer steps.
    """
    if steps < 2 * DRIFT_BLOCKS:
        raise ValueError(f"a drift needs at least {2 * DRIFT_BLOCKS} steps, not {steps}")
    system = _copy(atoms, calculator)
    system.set_momenta(rng.standard_normal((len(system), 3)) * np.sqrt(KB * temperature * system.get_masses())[:, None])
    Stationary(system)
    dynamics = VelocityVerlet(system, timestep=timestep_fs * FS)
    energies = np.empty(steps)
    for step in range(steps):
        dynamics.run(1)
        energies[step] = system.get_total_energy() / len(system)
        if not math.isfinite(energies[step]):
            return Gate("nve drift", math.inf, limit, "meV/atom/ps", False, f"energy not finite after {step + 1} steps")
    later = np.array_split(energies[steps // 5 :], DRIFT_BLOCKS)
    ps = np.array_split(np.arange(steps)[steps // 5 :] * timestep_fs * 1e-3, DRIFT_BLOCKS)
    fit = linregress([block.mean() for block in ps], [block.mean() for block in later])
    drift, error = abs(float(fit.slope)) / MEV, float(fit.stderr) / MEV
    return Gate("nve drift", drift, limit, "meV/atom/ps", drift - 2 * error <= limit, f"standard error {error:.2g}")


def force_consistency(
    atoms: Atoms, calculator: BaseCalculator, rng: np.random.Generator, *, directions: int = 4, step: float = 0.01
) -> Gate:
    """Largest difference between the force and -dE/dx along random directions of all coordinates, eV/Å.

    Fourth-order central difference; `step` is the length of the displacement in the space of all coordinates, Å. Give a
    displaced frame: where forces vanish by symmetry the comparison is weak.
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


def extensivity(atoms: Atoms, calculator: BaseCalculator) -> Gate:
    """Energy, eV/atom, by which two of the same differ from twice one; forces on the atoms may not change either.

    Two cells side by side where the structure is periodic, two copies far apart where it is not.
    """
    one = _copy(atoms, calculator)
    axis = next(iter(np.flatnonzero(one.pbc).tolist()), None)
    if axis is None:
        two = one.copy()
        two.positions += [FAR_APART + float(np.ptp(one.positions[:, 0])), 0.0, 0.0]
        both = _copy(one + two, calculator)
    else:
        both = _copy(one.repeat([2 if n == axis else 1 for n in range(3)]), calculator)
    energy = abs(float(both.get_potential_energy()) - 2 * float(one.get_potential_energy())) / len(both)
    force = float(np.abs(both.get_forces() - np.tile(one.get_forces(), (2, 1))).max())
    passed = energy <= EXTENSIVITY_LIMIT and force <= CONSISTENCY_FLOOR
    return Gate("extensivity", energy, EXTENSIVITY_LIMIT, "eV/atom", passed, f"forces change by {force:.2g} eV/Å")


def repulsive_wall(atoms: Atoms, calculator: BaseCalculator, *, points: int = 6) -> Gate:
    """Whether the energy, eV, rises whenever two neighbours are pushed together.

    For each pair of species, the closest two atoms of `atoms` with nothing between them are compressed along their axis, in
    place among their neighbours, through `points` distances from `WALL_FROM` to `WALL_TO` sums of covalent radii. The value is
    the smallest rise between successive distances. Pairs of species farther apart than `WALL_REACH` sums are not tried.
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
    """For each pair of species within reach: the closest two atoms and the vector from the first to the second, Å."""
    radii = covalent_radii[atoms.numbers]
    first, second, axes, lengths = neighbor_list("ijDd", atoms, 2 * WALL_REACH * float(radii.max()))
    # An atom cannot be pushed towards its own image.
    within = (lengths <= WALL_REACH * (radii[first] + radii[second])) & (first != second)

    def is_free(k: int) -> bool:
        # No third atom nearly between the two: it would be crushed first. 0.6 of their distance from both is an angle of 113°.
        others = axes[first == first[k]]
        near = np.maximum(np.linalg.norm(others, axis=1), np.linalg.norm(others - axes[k], axis=1)) < 0.6 * lengths[k]
        return not near.any()

    pairs = []
    for a, b in itertools.combinations_with_replacement(sorted(set(atoms.numbers.tolist())), 2):
        these = np.flatnonzero(within & (atoms.numbers[first] == a) & (atoms.numbers[second] == b))
        closest = next((k for k in these[np.argsort(lengths[these], kind="stable")].tolist() if is_free(k)), None)
        if closest is not None:
            pairs.append((int(first[closest]), int(second[closest]), axes[closest]))
    return pairs


def _copy(atoms: Atoms, calculator: BaseCalculator) -> Atoms:
    system = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    system.calc = calculator
    return system

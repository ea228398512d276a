"""Properties of a crystal at rest: equation of state, elastic constants, phonons. They take any ASE calculator with stress.

Ions are relaxed in every strained cell, so elastic constants are those of slow deformation. Phonons are phonopy's (Togo, Chaput,
Tadano and Tanaka, J. Phys. Condens. Matter 35, 353001 (2023)); without it (extra `al-leignn[phonons]`) they are left out.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from al_leignn.errors import RunError
from al_leignn.shapes import Float
from al_leignn.units import GPA

FORCE_TOLERANCE = 2e-3
"""eV/Å. Relaxation ends when no force, and no stress times volume, is larger."""

MOST_STEPS = 300

SPAN = 0.06
"""The equation of state is fitted to volumes within this share of the volume at rest, on either side."""

POINTS = 7

STRAIN = 5e-3
"""Of the central differences that give elastic constants."""

DISPLACEMENT = 0.01
"""Å, of the finite differences that give phonons."""

Q_POINTS = 8
"""Along each axis of the mesh that phonons are sampled on."""


@dataclass(frozen=True)
class CrystalProperties:
    """Of the relaxed crystal."""

    volume: float
    """Å^3/atom, at the minimum of the equation of state."""
    energy: float
    """eV/atom."""
    bulk_modulus: float
    """GPa, from the equation of state."""
    volumes: Float[np.ndarray, " points"]
    """Å^3/atom, that the equation of state was fitted to."""
    energies: Float[np.ndarray, " points"]
    """eV/atom, above the minimum."""
    elastic: Float[np.ndarray, "6 6"]
    """GPa, Voigt order xx yy zz yz xz xy, along the axes of the cell as given."""
    frequencies: Float[np.ndarray, "q bands"] | None
    """THz, ascending, on a mesh of q-points; imaginary ones are negative. None without phonopy."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()}


def crystal_properties(
    atoms: Atoms, calculator: BaseCalculator, *, supercell: Sequence[int] = (1, 1, 1), relax: bool = True
) -> CrystalProperties:
    """Relax a crystal and measure it.

    Parameters
    ----------
    atoms
        Periodic in three directions; never changed.
    supercell
        Repetition of the cell that phonons are computed in; waves that do not fit into it are interpolated.
    relax
        False: take cell and positions as they are; for those of high symmetry that are at rest already.

    Raises
    ------
    RunError
        If a relaxation does not end.
    """
    rest = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    rest.calc = calculator
    if relax:
        _relax(rest, cell=True)
    volume, energy, bulk_modulus, curve = equation_of_state(rest)
    return CrystalProperties(
        volume=volume,
        energy=energy,
        bulk_modulus=bulk_modulus,
        volumes=curve[0],
        energies=curve[1],
        elastic=elastic_constants(rest),
        frequencies=phonons(rest, supercell) if importlib.util.find_spec("phonopy") else None,
    )


def equation_of_state(rest: Atoms) -> tuple[float, float, float, Float[np.ndarray, "2 points"]]:
    """Volume (Å^3/atom), energy (eV/atom) and bulk modulus (GPa) at the minimum, and the points of the fit.

    The stabilised jellium equation: a cubic in V^(-1/3) (Alchagirov, Perdew, Boettger, Albers and Fiolhais, Phys. Rev. B 67,
    026103 (2003)), which needs no first guess.

    Raises
    ------
    RunError
        If the energies have no minimum near the volume at rest.
    """
    n, volumes, energies = len(rest), [], []
    for factor in np.linspace(1 - SPAN, 1 + SPAN, POINTS):
        strained = _deformed(rest, np.eye(3) * np.cbrt(factor))
        volumes.append(strained.get_volume() / n)
        energies.append(strained.get_potential_energy() / n)
    try:
        volume, energy, modulus = EquationOfState(volumes, energies, eos="sj").fit(warn=False)
    except ValueError:
        raise RunError("no equation of state fits the energies", fix="relax the structure, or look at the potential") from None
    return float(volume), float(energy), float(modulus / GPA), np.array([volumes, np.array(energies) - energy])


def elastic_constants(rest: Atoms) -> Float[np.ndarray, "6 6"]:
    """dσ/dε by central differences of the stress, symmetrised, GPa; shear strains are engineering strains (twice ε_yz)."""
    columns = []
    for axis in range(6):
        stresses = [_deformed(rest, _strain(axis, size)).get_stress() for size in (STRAIN, -STRAIN)]
        columns.append((stresses[0] - stresses[1]) / (2 * STRAIN))
    matrix = np.array(columns).T / GPA
    return np.asarray((matrix + matrix.T) / 2)


def phonons(rest: Atoms, supercell: Sequence[int]) -> Float[np.ndarray, "q bands"]:
    """Frequencies in the harmonic approximation, THz, on a mesh of q-points that contains Γ; one row per q-point."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(numbers=rest.numbers, scaled_positions=rest.get_scaled_positions(), cell=np.asarray(rest.cell))
    found = Phonopy(cell, supercell_matrix=np.diag(supercell), primitive_matrix="P")
    found.generate_displacements(distance=DISPLACEMENT)
    forces = []
    for displaced in found.supercells_with_displacements or []:
        atoms = Atoms(numbers=displaced.numbers, scaled_positions=displaced.scaled_positions, cell=displaced.cell, pbc=True)
        atoms.calc = rest.calc
        forces.append(atoms.get_forces())
    found.forces = np.array(forces)
    found.produce_force_constants(show_drift=False)
    found.symmetrize_force_constants()
    mesh = found.run_mesh([Q_POINTS] * 3, is_gamma_center=True, is_mesh_symmetry=False)
    return np.sort(mesh.frequencies, axis=1)


def _relax(atoms: Atoms, *, cell: bool) -> None:
    target: Any = FrechetCellFilter(atoms) if cell else atoms
    if not BFGS(target, logfile=None).run(fmax=FORCE_TOLERANCE, steps=MOST_STEPS):
        raise RunError(
            f"the crystal is not at rest after {MOST_STEPS} steps of relaxation",
            where=str(atoms.symbols),
            fix="start from a structure that is nearer to its minimum",
        )


def _strain(axis: int, size: float) -> Float[np.ndarray, "3 3"]:
    """Deformation by one Voigt component of the strain."""
    row, column = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))[axis]
    strain = np.zeros((3, 3))
    strain[row, column] += size / 2
    strain[column, row] += size / 2
    return np.eye(3) + strain


def _deformed(rest: Atoms, deformation: Float[np.ndarray, "3 3"]) -> Atoms:
    """A copy with another cell, its ions relaxed."""
    atoms = Atoms(numbers=rest.numbers, positions=rest.positions, cell=rest.cell, pbc=True)
    atoms.calc = rest.calc
    atoms.set_cell(np.asarray(rest.cell) @ deformation, scale_atoms=True)
    _relax(atoms, cell=False)
    return atoms

"""What a frame must pass before DFT is paid for, and what its labels must pass before they are believed."""

from dataclasses import dataclass

import numpy as np
from ase import units
from ase.data import chemical_symbols

from al_leignn.core import Doubt, DoubtfulLabels, Frame, LabelFailure, Labels, Reason
from al_leignn.geometry import closest_contact
from al_leignn.shapes import Float

SHORTEST_CONTACT = 0.5
"""Share of the sum of covalent radii below which atoms overlap: PAW spheres would, and DFT codes fail or mislead."""

NET_FORCE = (0.05, 0.10)
"""A net force per atom above the first, eV/Å, plus the second times the root mean square force, is a broken result.
Incomplete plane-wave sets leave a few percent (measured: 5 % for water at 300 eV)."""

SAME_FORCES = (0.05, 0.05)
"""Two computations of one label agree if no force component differs by more than the first, eV/Å, plus the second times the
root mean square force: SCF tolerances and grids (egg-box effect) leave less."""

SAME_ENERGY = 0.005
"""eV/atom, likewise."""

FAR_ENERGY = 0.1
"""eV/atom. Only an energy this far from what the committee expects is looked at for another unit."""

UNITS = {
    "Hartree and Hartree/Bohr": (units.Hartree, units.Hartree / units.Bohr),
    "Rydberg and Rydberg/Bohr": (units.Rydberg, units.Rydberg / units.Bohr),
    "kcal/mol and kcal/mol/Å": (units.kcal / units.mol, units.kcal / units.mol),
    "kJ/mol and kJ/mol/Å": (units.kJ / units.mol, units.kJ / units.mol),
}
"""Energy and force in eV and eV/Å of what a code may print instead."""


@dataclass(frozen=True)
class Expectation:
    """What the committee that chose a frame says its label will be."""

    energy: float
    """eV."""
    forces: Float[np.ndarray, "n_atoms 3"]
    """eV/Å."""
    force_bound: float
    """Calibrated bound on the largest force error of an atom, eV/Å; infinite where there is none."""

    def force_error(self, labels: Labels) -> float:
        """Largest error of an atom's force vector, eV/Å, if the label is right."""
        return float(np.linalg.norm(labels.forces - self.forces, axis=1).max())


def screen_geometry(frame: Frame, factor: float = SHORTEST_CONTACT) -> LabelFailure | None:
    """A failure for the geometry if DFT on this frame would be wasted, else None.

    Two atoms, periodic images included, must be farther apart than `factor` times the sum of their covalent radii.
    """
    atoms = frame.atoms
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        return LabelFailure(frame.uid, Reason.GEOMETRY, "positions or cell are not finite")
    contact = closest_contact(atoms, factor)
    if contact is None:
        return None
    i, j, distance, touch = contact
    pair = f"{chemical_symbols[atoms.numbers[i]]}{i}-{chemical_symbols[atoms.numbers[j]]}{j}"
    return LabelFailure(frame.uid, Reason.GEOMETRY, f"{pair} are {distance:.3f} Å apart, less than {factor:g} x {touch:.2f} Å")


def check_labels(frame: Frame, labels: Labels, max_force: float) -> Labels | DoubtfulLabels | LabelFailure:
    """The labels themselves if nothing in them speaks against them; else what does.

    Parameters
    ----------
    max_force
        Cap on force components, eV/Å.
    """
    forces = labels.forces
    shape = (len(frame.atoms), 3)
    if forces.shape != shape:
        return LabelFailure(frame.uid, Reason.BAD_OUTPUT, f"forces have shape {forces.shape}, not {shape}")
    if labels.stress is not None and labels.stress.shape != (6,):
        return LabelFailure(frame.uid, Reason.BAD_OUTPUT, f"stress has shape {labels.stress.shape}, not (6,)")
    for name, value in (("energy is", labels.energy), ("stress is", labels.stress), ("forces are", forces)):
        if value is not None and not np.isfinite(value).all():
            return LabelFailure(frame.uid, Reason.NOT_FINITE, f"the {name} not finite")
    largest = float(np.abs(forces).max())
    if largest > max_force:
        detail = f"a force component of {largest:.4g} eV/Å is above {max_force:g} eV/Å"
        return LabelFailure(frame.uid, Reason.FORCES, detail)
    net = float(np.linalg.norm(forces.sum(axis=0))) / len(forces)
    allowed = NET_FORCE[0] + NET_FORCE[1] * _rms(forces)
    if net > allowed:
        detail = f"the net force of {net:.4g} eV/Å per atom is above {allowed:.4g}"
        return DoubtfulLabels(labels, Doubt(Reason.NET_FORCE, detail))
    return labels


def unit_of(labels: Labels, expected: Expectation) -> str:
    """The unit that the numbers must be in for the committee to be right; empty if they are in eV and eV/Å."""
    if abs(labels.energy - expected.energy) <= FAR_ENERGY * len(labels.forces):
        return ""
    for name, (energy, force) in UNITS.items():
        in_ev = Labels(labels.energy * energy, labels.forces * force)
        near = _rms(in_ev.forces - expected.forces) <= 0.5 * _rms(expected.forces)  # a wrong unit is off by more than 13 times
        if near and abs(in_ev.energy - expected.energy) <= 0.02 * abs(expected.energy):
            return name
    return ""


def disagreement(first: Labels, second: Labels) -> str:
    """How two computations of one label differ, in words; empty if they agree."""
    energy = abs(first.energy - second.energy) / len(first.forces)
    force = float(np.abs(first.forces - second.forces).max())
    allowed = SAME_FORCES[0] + SAME_FORCES[1] * _rms(first.forces)
    if energy <= SAME_ENERGY and force <= allowed:
        return ""
    return f"energies differ by {energy:.3g} eV/atom, forces by up to {force:.3g} eV/Å"


def _rms(forces: Float[np.ndarray, "n_atoms 3"]) -> float:
    return float(np.sqrt(np.mean(forces**2)))

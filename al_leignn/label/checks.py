"""What a frame must pass before DFT is paid for, and what its labels must pass before they are believed."""

import numpy as np
from ase.data import chemical_symbols

from al_leignn.core import Frame, LabelFailure, Labels
from al_leignn.geometry import closest_contact

SHORTEST_CONTACT = 0.5
"""Share of the sum of covalent radii below which atoms overlap: PAW spheres would, and DFT codes fail or mislead."""

FORCE_CAP = 100.0
"""eV/Å. No structure a potential should learn from has a larger force component."""

NET_FORCE = (0.05, 0.10)
"""A net force per atom above the first, eV/Å, plus the second times the root mean square force, is a broken result.
Incomplete plane-wave sets leave a few percent (measured: 5 % for water at 300 eV)."""


def screen_geometry(frame: Frame, factor: float = SHORTEST_CONTACT) -> LabelFailure | None:
    """A failure with reason "geometry" if DFT on this frame would be wasted, else None.

    Two atoms, periodic images included, must be farther apart than `factor` times the sum of their covalent radii.
    """
    atoms = frame.atoms
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        return LabelFailure(frame.uid, "geometry", "positions or cell are not finite")
    contact = closest_contact(atoms, factor)
    if contact is None:
        return None
    i, j, distance, touch = contact
    pair = f"{chemical_symbols[atoms.numbers[i]]}{i}-{chemical_symbols[atoms.numbers[j]]}{j}"
    return LabelFailure(frame.uid, "geometry", f"{pair} are {distance:.3f} Å apart, less than {factor:g} x {touch:.2f} Å")


def check_labels(frame: Frame, labels: Labels) -> Labels | LabelFailure:
    """The labels themselves if nothing speaks against them, else a failure that says what does."""
    forces = labels.forces
    shape = (len(frame.atoms), 3)
    if forces.shape != shape:
        return LabelFailure(frame.uid, "bad output", f"forces have shape {forces.shape}, not {shape}")
    if labels.stress is not None and labels.stress.shape != (6,):
        return LabelFailure(frame.uid, "bad output", f"stress has shape {labels.stress.shape}, not (6,)")
    if not np.isfinite(labels.energy):
        return LabelFailure(frame.uid, "bad output", "the energy is not finite")
    if labels.stress is not None and not np.isfinite(labels.stress).all():
        return LabelFailure(frame.uid, "bad output", "the stress is not finite")
    if not np.isfinite(forces).all():
        return LabelFailure(frame.uid, "forces", "forces are not finite")
    largest = float(np.abs(forces).max())
    if largest > FORCE_CAP:
        return LabelFailure(frame.uid, "forces", f"a force component of {largest:.4g} eV/Å is above {FORCE_CAP:g} eV/Å")
    net = float(np.linalg.norm(forces.sum(axis=0))) / len(forces)
    allowed = NET_FORCE[0] + NET_FORCE[1] * float(np.sqrt(np.mean(forces**2)))
    if net > allowed:
        return LabelFailure(frame.uid, "forces", f"the net force of {net:.4g} eV/Å per atom is above {allowed:.4g}")
    return labels

"""Whether the output of a code is a label of the frame that was asked for. Shared by all labellers that read files."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from al_leignn.core import Labels, Reason
from al_leignn.units import voigt

SAME_PLACE = 1e-4
"""Å. The output must be of the frame that was asked for; codes print positions and cells with fewer digits than they hold."""


class NotALabelError(Exception):
    """Why an output is no label of the frame."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def require_same(asked: Atoms, given: Atoms, tolerance: float = SAME_PLACE) -> None:
    """Raise `NotALabelError` unless both are the same atoms in the same order, cell and place (up to lattice vectors)."""
    if list(given.numbers) != list(asked.numbers):
        raise NotALabelError(Reason.WRONG_ATOMS, f"species or their order differ: {given.symbols} for {asked.symbols}")
    if list(given.pbc) != list(asked.pbc):
        raise NotALabelError(Reason.WRONG_CELL, f"periodicity differs: {given.pbc} for {asked.pbc}")
    off = float(np.abs(np.asarray(given.cell) - np.asarray(asked.cell))[asked.pbc].max(initial=0.0))
    if not off <= tolerance:
        raise NotALabelError(Reason.WRONG_CELL, f"the cell differs by {off:.2g} Å")
    shift = given.positions - asked.positions
    moved = float(find_mic(shift, asked.cell, asked.pbc)[1].max()) if np.isfinite(shift).all() else float("nan")
    if not moved <= tolerance:
        raise NotALabelError(Reason.OTHER_FRAME, f"positions differ by {moved:.2g} Å: it is of another frame")


def labels_of(atoms: Atoms) -> Labels:
    """Labels from what a file's reader found; REF_* keys come first.

    Raises
    ------
    NotALabelError
        If energy or forces are missing, or something has the wrong shape.
    """
    found: dict[str, Any] = {} if atoms.calc is None else dict(atoms.calc.results)
    found |= {k.removeprefix("REF_"): v for k, v in (atoms.info | atoms.arrays).items() if k.startswith("REF_")}
    # The free energy, where the code prints both, is the one that the forces are derivatives of.
    energy = found.get("free_energy", found.get("energy"))
    if energy is None or "forces" not in found:
        missing = " and ".join(
            name for name, there in (("energy", energy is not None), ("forces", "forces" in found)) if not there
        )
        raise NotALabelError(Reason.INCOMPLETE, f"it has no {missing}")
    stress = found.get("stress")
    try:
        six = None if stress is None or not atoms.pbc.all() else _six(np.array(stress, dtype=float))
        return Labels(float(energy), np.array(found["forces"], dtype=float).reshape(-1, 3), six)
    except (TypeError, ValueError) as error:
        what = f"energy, forces or stress are not numbers of the right shape: {error}"
        raise NotALabelError(Reason.BAD_OUTPUT, what) from None


def _six(stress: np.ndarray) -> np.ndarray:
    if stress.size == 6:
        return stress.reshape(6)
    full = stress.reshape(3, 3)
    if not np.allclose(full, full.T, atol=1e-6):
        raise NotALabelError(Reason.BAD_OUTPUT, "the stress tensor is not symmetric")
    return voigt(full)

"""The quantities whose uncertainty is calibrated: the worst atom of a frame, any atom, atoms of one element, energy per atom."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols

from al_leignn.calibration import ENERGY_FLOOR, FORCE_FLOOR, Calibration, Coverage, calibrate, coverage, frame_errors
from al_leignn.core import CommitteePrediction, LabelledFrame
from al_leignn.deviation import deviation, relative
from al_leignn.shapes import Bool, Float, Int

WORST_ATOM = "worst atom of a frame"
ANY_ATOM = "force on an atom"
ENERGY = "energy per atom"


class Quantity(NamedTuple):
    """True errors and deviations of one quantity on some labelled frames."""

    errors: Float[np.ndarray, " n"]
    deviations: Float[np.ndarray, " n"]
    frame: Int[np.ndarray, " n"]
    """Which frame each entry belongs to."""
    unit: str
    floor: float

    def of(self, mask: Bool[np.ndarray, " n"]) -> "Quantity":
        """The entries where the mask holds."""
        return self._replace(errors=self.errors[mask], deviations=self.deviations[mask], frame=self.frame[mask])

    def calibrate(self) -> Calibration:
        return calibrate(self.errors, self.deviations, floor=self.floor, frame=self.frame)

    def coverage(self, calibration: Calibration) -> Coverage:
        return coverage(calibration, self.errors, self.deviations, self.frame)


def quantities(
    predictions: Sequence[CommitteePrediction], labelled: Sequence[LabelledFrame], force_scale: float | None = None
) -> dict[str, Quantity]:
    """All quantities by name. Those of atoms, and of each element where there are several ("force on Cu"), go by frames.

    Parameters
    ----------
    force_scale
        Of the relative criterion, eV/Å, which errors and deviations of forces are subject to alike; None: absolute.
    """
    if not labelled:
        return {}
    found = [deviation(prediction) for prediction in predictions]
    errors = [frame_errors(prediction, item.labels) for prediction, item in zip(predictions, labelled, strict=True)]
    spread = [relative(d.per_atom, d.mean_force, force_scale) for d in found]
    missed = [relative(e.per_atom, d.mean_force, force_scale) for e, d in zip(errors, found, strict=True)]
    numbers = np.concatenate([item.frame.atoms.numbers for item in labelled])
    elements = np.unique(numbers).tolist()
    frame = np.repeat(np.arange(len(labelled)), [len(d) for d in spread])
    atoms = Quantity(np.concatenate(missed), np.concatenate(spread), frame, "eV/Å", FORCE_FLOOR)
    frames = np.arange(len(labelled))
    energies = np.array([e.energy for e in errors]), np.array([d.energy for d in found])
    return {
        WORST_ATOM: Quantity(
            np.array([m.max() for m in missed]), np.array([s.max() for s in spread]), frames, "eV/Å", FORCE_FLOOR
        ),
        ANY_ATOM: atoms,
        **({} if len(elements) < 2 else {f"force on {chemical_symbols[z]}": atoms.of(numbers == z) for z in elements}),
        ENERGY: Quantity(*energies, frames, "eV/atom", ENERGY_FLOOR),
    }

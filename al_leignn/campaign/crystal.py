"""Properties of a crystal by the committee, and by the campaign's own level of theory to compare with."""

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.structures import read_structures
from al_leignn.core import Frame, Origin
from al_leignn.errors import RunError, StructureError
from al_leignn.label.base import accepted, label_frame, make_labeller
from al_leignn.labelstore import LabelStore
from al_leignn.validate.crystal import CrystalProperties

SMALL = 0.02
"""Elastic constants below this share of the largest are not listed: most vanish by symmetry."""


class LabellerCalculator(Calculator):
    """A campaign's labeller as an ASE calculator. Labels go to the campaign's store: what was paid for is not paid for again."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.implemented_properties = ["energy", "forces", "stress"]
        config = layout.config()
        self._labeller = make_labeller(layout.labeller(config))
        self._store = LabelStore(layout.label_store(config))
        self._checks = config.checks
        self._scratch = layout.root / ".crystal"
        self.computed = 0
        """Labels that were not in the store."""

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        frame = Frame.of(atoms, Origin("crystal"))
        outcome = label_frame(self._labeller, frame, self._store, self._scratch, checks=self._checks)
        labels = accepted(outcome.result, "no label", where=str(self._scratch.parent))
        if labels.stress is None:
            raise RunError(
                "this labeller gives no stress, from which elastic constants are derived", fix="use plane waves (mode = 'pw')"
            )
        self.computed += not outcome.from_store
        self.results = {"energy": labels.energy, "forces": labels.forces, "stress": labels.stress}


def crystal_of(path: Path) -> Atoms:
    """The one structure of a file, periodic in three directions.

    Raises
    ------
    StructureError
        If there is none, or more than one, or it is no crystal.
    """
    (atoms, *more) = read_structures(path)
    if more or not atoms.pbc.all():
        what = f"the file holds {1 + len(more)} structures" if more else "the structure is not periodic in three directions"
        raise StructureError(what, where=str(path), fix="give one crystal")
    return atoms


def table_of(found: CrystalProperties, like: CrystalProperties) -> dict[str, float]:
    """Its numbers by name and unit; of the elastic constants those that are not small in `like`."""
    table = {
        "volume, Å³/atom": found.volume,
        "bulk modulus, GPa": found.bulk_modulus,
    }
    largest = float(np.abs(like.elastic).max())
    for i, j in zip(*np.triu_indices(6), strict=True):
        if abs(like.elastic[i, j]) > SMALL * largest:
            table[f"C{i + 1}{j + 1}, GPa"] = float(found.elastic[i, j])
    if found.frequencies is not None:
        table["highest phonon, THz"] = float(found.frequencies.max())
        table["lowest phonon, THz"] = float(found.frequencies.min())
    return table


def phonon_difference(found: CrystalProperties, reference: CrystalProperties) -> float | None:
    """Root mean square difference of all frequencies, THz; None where one has none."""
    if found.frequencies is None or reference.frequencies is None:
        return None
    return float(np.sqrt(np.mean((found.frequencies - reference.frequencies) ** 2)))

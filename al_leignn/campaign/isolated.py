"""Energies of isolated atoms, computed once at the campaign's level of theory: what `train --isolated-atoms` reads."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, ground_state_magnetic_moments

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.preflight import read_cells
from al_leignn.config import Cp2kConfig, EspressoConfig, GpawConfig, Labeller, MailboxConfig, VaspConfig
from al_leignn.core import Frame, LabelledFrame, Origin
from al_leignn.errors import InputError
from al_leignn.label.base import label_frame, make_labeller
from al_leignn.labelstore import LabelStore
from al_leignn.store import write_frames

BOX = 12.0
"""Å. Edge of the cell around an atom; labellers add empty space where they want more."""


def label_atoms(layout: Layout, out: Path) -> dict[str, float]:
    """Label one isolated atom of each of the campaign's species, through its label store, and write them to a file.

    Their spins are those of free atoms: DFT codes compute them spin-polarised, whatever the campaign says of spin; ASE
    calculators and commands get them as initial magnetic moments, which those without spin ignore.

    Returns
    -------
    dict
        Energy by symbol, eV.

    Raises
    ------
    InputError
        If the labeller cannot be told the moment of an atom.
    RunError
        If a label fails.
    """
    config = layout.config()
    store = LabelStore(layout.label_store(config))
    symbols = sorted({symbol for atoms in read_cells(layout, config) for symbol in atoms.get_chemical_symbols()})
    found: list[LabelledFrame] = []
    for symbol in symbols:
        # Three unequal edges keep a code from finding a symmetry that a partly filled shell does not have.
        cell = np.diag([BOX, BOX + 0.5, BOX + 1.0])
        frame = Frame.of(Atoms(symbol, positions=[np.diag(cell) / 2], cell=cell), Origin("given"))
        frame.atoms.set_initial_magnetic_moments([_moment(symbol)])
        labeller = make_labeller(_of_atom(layout.labeller(config), symbol))
        outcome = label_frame(labeller, frame, store, layout.root / ".atoms", checks=config.checks)
        labels = outcome.numbers(f"of an isolated {symbol} atom", str(layout.root))
        found.append(LabelledFrame(frame, labels, labeller.level))
    write_frames(out, found)
    return {str(one.frame.atoms.symbols[0]): one.labels.energy for one in found}


def _of_atom(settings: Labeller, symbol: str) -> Labeller:
    if isinstance(settings, MailboxConfig):
        what = f"isolated atoms cannot be labelled with type = {settings.type!r}"
        raise InputError(what, fix="compute them by hand and give `al-leignn train` their energies with --isolated-atoms")
    if not isinstance(settings, GpawConfig | EspressoConfig | Cp2kConfig | VaspConfig):
        return settings
    moment = _moment(symbol)
    changes = {"spin": moment > 0, "initial_moments": {symbol: moment} if moment else {}, "kpts": (1, 1, 1), "kpt_spacing": None}
    return settings.model_copy(update=changes)


def _moment(symbol: str) -> float:
    """Magnetic moment of a free atom in its ground state, μB."""
    return float(ground_state_magnetic_moments[atomic_numbers[symbol]])

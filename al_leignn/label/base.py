"""What a labeller is, and the one way a frame gets its label: store first, screened before, checked after, paid once."""

import dataclasses
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from al_leignn.config import AseConfig, ExternalConfig, GpawConfig
from al_leignn.core import Frame, LabelFailure, LabelledFrame, Labels, structure_digest
from al_leignn.label.ase_calc import AseLabeller
from al_leignn.label.checks import check_labels, screen_geometry
from al_leignn.label.external import ExternalLabeller
from al_leignn.label.gpaw import GpawLabeller
from al_leignn.labelstore import LabelStore
from al_leignn.store import Stopwatch

LABEL_DECIMALS = 8
"""Labels are rounded to 1e-8 eV, eV/Å and eV/Å^3: what extended XYZ keeps, and far below what any SCF means."""


@runtime_checkable
class Labeller(Protocol):
    """Something that computes energy and forces of a frame. A new one is a module, a config class and an arm below."""

    @property
    def level(self) -> str:
        """Digest of level of theory and code version: labels of equal level are comparable, others never mix.

        Raises
        ------
        LabellerError
            If the code's version cannot be told.
        """

    @property
    def rungs(self) -> int:
        """How many attempts there are at a hard SCF, each gentler than the one before and of the same level."""

    def describe(self) -> dict[str, str]:
        """Level of theory and code version for people; stored once beside the labels."""

    def check(self, species: Iterable[int]) -> list[str]:
        """What is missing on this machine for these atomic numbers, each with how to install it."""

    def label(self, frame: Frame, scratch: Path, rung: int = 0) -> Labels | LabelFailure:
        """One attempt, in the empty folder `scratch`. Whatever goes wrong with this frame is a `LabelFailure`."""


@dataclass(frozen=True)
class LabelOutcome:
    """A label or the reason there is none, and what it cost this time."""

    result: Labels | LabelFailure
    from_store: bool
    wall_s: float
    cpu_s: float
    rung: int
    """Rung of the rescue ladder that gave the result; 0 is the configured settings."""


def make_labeller(config: GpawConfig | AseConfig | ExternalConfig) -> GpawLabeller | AseLabeller | ExternalLabeller:
    match config:
        case GpawConfig():
            return GpawLabeller(config)
        case AseConfig():
            return AseLabeller(config)
        case ExternalConfig():
            return ExternalLabeller(config)


def label_frame(labeller: Labeller, frame: Frame, store: LabelStore, scratch: Path) -> LabelOutcome:
    """The label of `frame`: from the store if anybody paid for it before, else computed, checked and stored.

    Failures are not stored: a later attempt may have more time, or a repaired machine. Files go to a temporary folder in
    `scratch` that is gone on return.

    Raises
    ------
    LabellerError
        If the labeller cannot run at all.
    """
    known = store.get(structure_digest(frame.atoms), labeller.level)
    if known is not None:
        return LabelOutcome(known.labels, from_store=True, wall_s=0.0, cpu_s=0.0, rung=0)
    stopwatch = Stopwatch()
    result, rung = _climb(labeller, frame, scratch)
    times = stopwatch.times()
    if isinstance(result, Labels):
        cost = {"wall_s": times["wall_s"], "cpu_s": times["cpu_s"], "rung": float(rung)}
        store.describe_level(labeller.level, labeller.describe())
        store.put(LabelledFrame(frame, result, labeller.level), cost)
    return LabelOutcome(result, False, times["wall_s"], times["cpu_s"], rung)


def _climb(labeller: Labeller, frame: Frame, scratch: Path) -> tuple[Labels | LabelFailure, int]:
    """Try one rung after the other while the SCF does not converge; the last result and its rung."""
    result: Labels | LabelFailure | None = screen_geometry(frame)
    rung = 0
    while result is None:
        scratch.mkdir(parents=True, exist_ok=True)
        # A killed process may still be closing its files while the folder is removed.
        with tempfile.TemporaryDirectory(prefix="label-", dir=scratch, ignore_cleanup_errors=True) as folder:
            result = labeller.label(frame, Path(folder), rung)
        if isinstance(result, LabelFailure) and result.reason == "unconverged" and rung + 1 < labeller.rungs:
            result, rung = None, rung + 1
    return (check_labels(frame, _rounded(result)) if isinstance(result, Labels) else result), rung


def _rounded(labels: Labels) -> Labels:
    stress = None if labels.stress is None else np.round(labels.stress, LABEL_DECIMALS)
    energy = round(labels.energy, LABEL_DECIMALS)
    return dataclasses.replace(labels, energy=energy, forces=np.round(labels.forces, LABEL_DECIMALS), stress=stress)

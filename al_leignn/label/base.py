"""What a labeller is, and the one way a frame gets its label: store first, screened before, checked after, paid once."""

import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from al_leignn.config import (
    AseConfig,
    CheckConfig,
    Cp2kConfig,
    EspressoConfig,
    ExternalConfig,
    GpawConfig,
    MailboxConfig,
    VaspConfig,
)
from al_leignn.config import Labeller as LabellerConfig
from al_leignn.core import Allowance, Doubt, DoubtfulLabels, Frame, LabelFailure, LabelledFrame, Labels, Reason
from al_leignn.errors import RunError
from al_leignn.label.ase_calc import AseLabeller
from al_leignn.label.checks import Expectation, check_labels, disagreement, screen_geometry, unit_of
from al_leignn.label.cp2k import Cp2kLabeller
from al_leignn.label.equivalent import Equivalent
from al_leignn.label.espresso import EspressoLabeller
from al_leignn.label.external import ExternalLabeller
from al_leignn.label.files import FileLabeller
from al_leignn.label.gpaw import GpawLabeller
from al_leignn.label.mailbox import MailboxLabeller
from al_leignn.label.vasp import VaspLabeller
from al_leignn.labelstore import LabelStore
from al_leignn.store import Stopwatch

LABEL_DECIMALS = 8
"""Labels are rounded to 1e-8 eV, eV/Å and eV/Å^3: what extended XYZ keeps, and far below what any SCF means."""


NO_ROOM = 1 << 20
"""Bytes. What fails on a disk with less free space than this fails for want of it."""


ENDING_S = 0.02
"""Core-seconds that are kept back for ending an attempt and for keeping its result."""


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

    def within(self, cpu_s: float) -> "Labeller":
        """The same labeller, whose attempts fail for the budget where a process of theirs takes more CPU seconds than this."""

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """One attempt, in the empty folder `scratch`. Whatever goes wrong with this frame is a `LabelFailure`.

        `tight` asks for a tenth of the usual SCF tolerances, at the same level of theory, where the labeller has any.
        """


@runtime_checkable
class Follower(Protocol):
    """A labeller that can start the SCF of a frame from the end of the one before, as in a trajectory."""

    def follow(self, frame: Frame, scratch: Path, *, fresh: bool) -> Labels | LabelFailure:
        """One attempt, in the empty folder `scratch`; `fresh` forgets the frame before."""


@dataclass(frozen=True)
class LabelOutcome:
    """A label, or the reason it is not accepted, and what it cost this time."""

    result: Labels | DoubtfulLabels | LabelFailure
    from_store: bool
    wall_s: float
    cpu_s: float
    rung: int
    """Rung of the rescue ladder that gave the result; 0 is the configured settings."""
    computed: int = 0
    """Times the labeller came to an end: more than one where a label was repeated."""

    @property
    def against(self) -> Doubt | None:
        """What speaks against accepting it; None for an accepted label."""
        return None if isinstance(self.result, Labels) else _objection(self.result)

    def numbers(self, what: str, where: str) -> Labels:
        """Energy, forces and stress, doubtful or not; raises `RunError`, which names `what` was labelled, if there are none."""
        match self.result:
            case LabelFailure(reason=reason, detail=detail):
                raise RunError(f"no label {what}: {reason} {detail}", where=where)
            case DoubtfulLabels(labels=labels) | (Labels() as labels):
                return labels


def accepted(result: Labels | DoubtfulLabels | LabelFailure, what: str, *, where: str, fix: str = "") -> Labels:
    """The labels; raises `RunError`, which begins with `what`, if anything speaks against them."""
    if isinstance(result, Labels):
        return result
    doubt = _objection(result)
    raise RunError(f"{what}: {doubt.reason} {doubt.detail}", where=where, fix=fix)


def _objection(result: DoubtfulLabels | LabelFailure) -> Doubt:
    return result.doubt if isinstance(result, DoubtfulLabels) else Doubt(result.reason, result.detail)


def make_labeller(config: LabellerConfig) -> GpawLabeller | FileLabeller[Any] | AseLabeller | ExternalLabeller | MailboxLabeller:
    match config:
        case GpawConfig():
            return GpawLabeller(config)
        case EspressoConfig():
            return EspressoLabeller(config)
        case Cp2kConfig():
            return Cp2kLabeller(config)
        case VaspConfig():
            return VaspLabeller(config)
        case MailboxConfig():
            return MailboxLabeller(config)
        case AseConfig():
            return AseLabeller(config)
        case ExternalConfig():
            return ExternalLabeller(config)


def label_frame(
    labeller: Labeller,
    frame: Frame,
    store: LabelStore,
    scratch: Path,
    *,
    checks: CheckConfig | None = None,
    expectation: Expectation | None = None,
    repeat: np.random.Generator | None = None,
    allowance: Allowance | None = None,
) -> LabelOutcome:
    """The label of `frame`: from the store if anybody paid for it before, else computed, checked and stored.

    While another process computes the same label, it is waited for; has that one failed, it is tried here.
    Rejected labels are not stored: a later attempt may have more time, or a repaired machine. Files go to a temporary folder
    in `scratch` that is gone on return.

    Parameters
    ----------
    checks
        None: the default ones.
    expectation
        What the committee says; a label far from it is computed once more, with tighter settings.
    repeat
        Draws an equivalent structure whose label must be the same; None: the label is not repeated.
    allowance
        What it may cost: then it is ended, and rejected for the budget. None: no limit.

    Raises
    ------
    LabellerError
        If the labeller cannot run at all.
    """
    known = _known(frame, labeller, store)
    if known is not None:
        return known
    with store.paying(frame, labeller.level):
        known = _known(frame, labeller, store)  # somebody else may have paid meanwhile
        if known is not None:
            return known
        attempt = _Attempt(labeller, scratch, checks or CheckConfig(), allowance)
        stopwatch = Stopwatch()
        result = attempt.checked(frame, expectation, repeat)
        times = stopwatch.times()
        if not isinstance(result, LabelFailure):
            labels, doubt = (result, None) if isinstance(result, Labels) else (result.labels, result.doubt)
            cost = {"wall_s": times["wall_s"], "cpu_s": times["cpu_s"], "rung": float(attempt.rung)}
            store.describe_level(labeller.level, labeller.describe())
            store.put(LabelledFrame(frame, labels, labeller.level), cost, doubt)
        return LabelOutcome(result, False, times["wall_s"], times["cpu_s"], attempt.rung, attempt.computed)


def _known(frame: Frame, labeller: Labeller, store: LabelStore) -> LabelOutcome | None:
    entry = store.find(frame, labeller.level)
    if entry is None:
        return None
    labels, doubt = entry.labelled.labels, entry.doubt if entry.quarantined else None
    return LabelOutcome(labels if doubt is None else DoubtfulLabels(labels, doubt), True, 0.0, 0.0, rung=0)


def label_next(
    labeller: Labeller, frame: Frame, scratch: Path, *, fresh: bool, checks: CheckConfig
) -> Labels | DoubtfulLabels | LabelFailure:
    """The label of the next frame of a trajectory, screened before and checked after, in a temporary folder in `scratch`.

    Its SCF starts where that of the frame before ended, where the labeller can do that and unless `fresh`. The label store
    takes no part: such a label depends, within the SCF's tolerances, on the frames before it.
    """
    attempt = _Attempt(labeller, scratch, checks)
    failure = screen_geometry(frame)
    if failure is not None:
        return failure
    if isinstance(labeller, Follower):
        result = attempt.in_folder(lambda folder: labeller.follow(frame, folder, fresh=fresh))
        if isinstance(result, Labels):
            return check_labels(frame, _rounded(result), checks.max_force)
    return attempt.climb(frame)


class _Attempt:
    """One label under way."""

    def __init__(self, labeller: Labeller, scratch: Path, checks: CheckConfig, allowance: Allowance | None = None) -> None:
        self._labeller = labeller
        self._scratch = scratch
        self._checks = checks
        self._allowance = allowance
        self._watch = Stopwatch()
        self.rung = 0
        self.computed = 0

    def checked(
        self, frame: Frame, expectation: Expectation | None, repeat: np.random.Generator | None
    ) -> Labels | DoubtfulLabels | LabelFailure:
        """Screen the frame, label it, and hold against the label what can be held against it alone."""
        result = screen_geometry(frame) or self.climb(frame)
        if isinstance(result, Labels) and expectation is not None:
            result = self.confirm(frame, result, expectation)
        if isinstance(result, Labels) and repeat is not None:
            result = self.repeat(frame, result, repeat)
        return result

    def climb(self, frame: Frame) -> Labels | DoubtfulLabels | LabelFailure:
        """Try one rung after the other while the SCF does not converge."""
        result = self._run(frame)
        while isinstance(result, LabelFailure) and result.reason is Reason.UNCONVERGED and self.rung + 1 < self._labeller.rungs:
            self.rung += 1
            result = self._run(frame)
        return check_labels(frame, _rounded(result), self._checks.max_force) if isinstance(result, Labels) else result

    def confirm(self, frame: Frame, labels: Labels, expected: Expectation) -> Labels | DoubtfulLabels:
        """Labels far from what the committee says are computed again, tighter: two that agree are the committee's error."""
        unit = unit_of(labels, expected)
        if unit:
            return DoubtfulLabels(labels, Doubt(Reason.UNITS, f"energy and forces look like {unit}"))
        error, bound = expected.force_error(labels), self._checks.residual_factor * expected.force_bound
        if error <= bound:
            return labels
        again = self._run(frame, tight=True)
        if isinstance(again, LabelFailure):
            detail = f"far from the committee, and tighter settings end in: {again.reason} {again.detail}".strip()
            return DoubtfulLabels(labels, Doubt(Reason.IRREPRODUCIBLE, detail))
        difference = disagreement(labels, again)
        if difference:
            detail = f"{error:.3g} eV/Å from the committee (bound {bound:.3g}), and with tighter settings {difference}"
            return DoubtfulLabels(labels, Doubt(Reason.IRREPRODUCIBLE, detail))
        return labels

    def repeat(self, frame: Frame, labels: Labels, rng: np.random.Generator) -> Labels | DoubtfulLabels:
        """Compare with the label of an equivalent structure."""
        equivalent = Equivalent.of(frame, rng)
        again = self._run(equivalent.frame)
        if isinstance(again, LabelFailure):
            if again.reason is Reason.BUDGET:
                return labels  # nothing has been found that speaks against them
            detail = f"an equivalent structure ends in: {again.reason} {again.detail}".strip()
        else:
            difference = disagreement(labels, equivalent.labels_of_original(again))
            if not difference:
                return labels
            detail = f"for an equivalent structure, {difference}"
        return DoubtfulLabels(labels, Doubt(Reason.ASYMMETRIC, detail))

    def in_folder(self, work: Callable[[Path], Labels | LabelFailure]) -> Labels | LabelFailure:
        """Compute something in a temporary folder."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self.computed += 1
        # A killed process may still be closing its files while the folder is removed.
        with tempfile.TemporaryDirectory(prefix="label-", dir=self._scratch, ignore_cleanup_errors=True) as folder:
            return work(Path(folder))

    def _run(self, frame: Frame, *, tight: bool = False) -> Labels | LabelFailure:
        """Once, and once more if somebody killed it: that says nothing of the frame."""

        def attempt(folder: Path) -> Labels | LabelFailure:
            found = self._attempt(frame, folder, tight=tight)
            if isinstance(found, LabelFailure) and shutil.disk_usage(folder).free < NO_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))  # it is not the frame that failed
            return found

        result = self.in_folder(attempt)
        killed = isinstance(result, LabelFailure) and result.reason is Reason.KILLED
        return self.in_folder(attempt) if killed else result

    def _attempt(self, frame: Frame, folder: Path, *, tight: bool) -> Labels | LabelFailure:
        """One attempt, which ends where the allowance does."""
        if self._allowance is None:
            return self._labeller.label(frame, folder, self.rung, tight=tight)
        left_s = (self._allowance.core_s - self._watch.times()["cpu_s"] - ENDING_S) / self._allowance.cores
        if left_s > 0:
            found = self._labeller.within(left_s).label(frame, folder, self.rung, tight=tight)
            if not isinstance(found, LabelFailure) or found.reason is not Reason.BUDGET:
                return found
        detail = f"more than {self._allowance.core_s:.3g} core-seconds, its share of what was left"
        return LabelFailure(frame.uid, Reason.BUDGET, detail)


def _rounded(labels: Labels) -> Labels:
    stress = None if labels.stress is None else np.round(labels.stress, LABEL_DECIMALS)
    energy = round(labels.energy, LABEL_DECIMALS)
    return dataclasses.replace(labels, energy=energy, forces=np.round(labels.forces, LABEL_DECIMALS), stress=stress)

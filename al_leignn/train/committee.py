"""Fitting a whole committee on its own: one process a member."""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import numpy as np

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.committee import Committee
from al_leignn.model.threads import use_one_thread
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.schedule import planned_steps
from al_leignn.train.trainer import FitReport, fit_member

POLL_S = 0.2
"""Seconds between two looks at what the members report."""


class FitEvent(NamedTuple):
    """News of one member's fit."""

    member: int
    step: int
    steps: int
    errors: Mapping[str, float]
    """Those of the latest batch (`energy_mae`, …), or an entry of `FitReport.history`."""
    evaluated: bool
    """Whether it is such an entry."""


@dataclass(frozen=True)
class _Job:
    frames: Sequence[LabelledFrame]
    valid: Sequence[LabelledFrame] | None
    model: ModelConfig
    train: TrainConfig
    e0s: Mapping[int, float]
    seed: int
    folder: Path

    def fit(self, member: int, events: "Queue[FitEvent]") -> FitReport:
        use_one_thread()
        steps = planned_steps(self.train, [len(f.frame.atoms) for f in self.frames], warm=False)
        return fit_member(
            self.frames,
            self.model,
            self.train,
            member=member,
            seed=np.random.SeedSequence(self.seed, spawn_key=(member,)),
            e0s=self.e0s,
            start=None,
            out=self.member(member),
            steps=steps,
            progress=lambda done, total, errors: events.put(FitEvent(member, done, total, errors, evaluated=False)),
            evaluated=lambda entry: events.put(FitEvent(member, int(entry["step"]), steps, entry, evaluated=True)),
            valid=self.valid,
        )

    def member(self, member: int) -> Path:
        return self.folder / f"{member}.safetensors"


def fit_committee(
    frames: Sequence[LabelledFrame],
    model: ModelConfig,
    train: TrainConfig,
    *,
    seed: int,
    workers: int,
    valid: Sequence[LabelledFrame] | None = None,
    known_e0s: Mapping[int, float] | None = None,
    finished: Callable[[int, FitReport], None] = lambda *_: None,
    told: Callable[[FitEvent], None] = lambda _: None,
) -> tuple[Committee, list[FitReport]]:
    """Fit `train.members` members to labelled frames, `workers` at a time.

    Parameters
    ----------
    frames
        Usable frames of one level of theory (see `screening.set_aside`).
    valid
        Frames for choosing the best weights; without them each member leaves out a share of its own.
    known_e0s
        Isolated-atom energies by atomic number, eV; the others are fitted.
    finished
        Called with the member's number and report as members finish.
    told
        Called with what the members report while they are fitted.
    """
    with tempfile.TemporaryDirectory(prefix="al-leignn-train-") as folder:
        job = _Job(frames, valid, model, train, fit_e0s(frames, known=known_e0s or {}), seed, Path(folder))
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, ProcessPoolExecutor(workers, mp_context=context) as pool:
            events: Queue[FitEvent] = manager.Queue()
            fits = [pool.submit(job.fit, member, events) for member in range(train.members)]
            pending = set(fits)
            members = {fit: member for member, fit in enumerate(fits)}
            while pending:
                done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for _ in range(events.qsize()):
                    told(events.get())
                for fit in done:
                    finished(members[fit], fit.result())
            reports = [fit.result() for fit in fits]
        committee = Committee.load([job.member(member) for member in range(train.members)])
    return committee, reports

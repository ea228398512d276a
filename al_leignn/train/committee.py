"""Fitting a whole committee on its own: one process a member."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.committee import Committee
from al_leignn.model.threads import use_one_thread
from al_leignn.processes import Workers, send
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
    resume_dir: Path | None

    def fit(self, member: int) -> FitReport:
        """In a worker."""
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
            progress=lambda done, total, errors: send(FitEvent(member, done, total, errors, evaluated=False)),
            evaluated=lambda entry: send(FitEvent(member, int(entry["step"]), steps, entry, evaluated=True)),
            valid=self.valid,
            resume_dir=self.resume_dir,
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
    resume_dir: Path | None = None,
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
    resume_dir
        Folder for the state of an unfinished fit; equal arguments go on from it.
    finished
        Called with the member's number and report as members finish.
    told
        Called with what the members report while they are fitted, after a resume also with each evaluation before it.
    """
    with tempfile.TemporaryDirectory(prefix="al-leignn-train-") as folder:
        job = _Job(frames, valid, model, train, fit_e0s(frames, known=known_e0s or {}), seed, Path(folder), resume_dir)
        with Workers(workers) as pool:
            fits = [pool.submit(job.fit, member) for member in range(train.members)]
            pending = set(fits)
            members = {fit: member for member, fit in enumerate(fits)}
            while pending:
                done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
                for event in pool.news():
                    told(event)
                for fit in done:
                    finished(members[fit], fit.result())
            reports = [fit.result() for fit in fits]
        committee = Committee.load([job.member(member) for member in range(train.members)])
    return committee, reports

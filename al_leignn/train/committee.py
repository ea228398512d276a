"""Fitting a whole committee on its own: one process a member."""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.committee import Committee
from al_leignn.model.threads import use_one_thread
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.schedule import planned_steps
from al_leignn.train.trainer import FitReport, fit_member


@dataclass(frozen=True)
class _Job:
    frames: Sequence[LabelledFrame]
    valid: Sequence[LabelledFrame] | None
    model: ModelConfig
    train: TrainConfig
    e0s: Mapping[int, float]
    seed: int
    folder: Path

    def fit(self, member: int) -> FitReport:
        use_one_thread()
        return fit_member(
            self.frames,
            self.model,
            self.train,
            member=member,
            seed=np.random.SeedSequence(self.seed, spawn_key=(member,)),
            e0s=self.e0s,
            start=None,
            out=self.member(member),
            steps=planned_steps(self.train, [len(f.frame.atoms) for f in self.frames], warm=False),
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
    finished: Callable[[int, FitReport], None],
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
    """
    with tempfile.TemporaryDirectory(prefix="al-leignn-train-") as folder:
        job = _Job(frames, valid, model, train, fit_e0s(frames, known=known_e0s or {}), seed, Path(folder))
        reports: dict[int, FitReport] = {}
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            members = {pool.submit(job.fit, member): member for member in range(train.members)}
            for future in as_completed(members):
                member = members[future]
                reports[member] = future.result()
                finished(member, reports[member])
        committee = Committee.load([job.member(member) for member in range(train.members)])
    return committee, [reports[member] for member in range(train.members)]

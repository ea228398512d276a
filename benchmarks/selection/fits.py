"""A small committee, fitted quickly: the same for all rules, so that only the choice of frames differs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from al_leignn.calibration import Calibration, calibrate, frame_errors
from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import CommitteePrediction, Frame, LabelledFrame
from al_leignn.deviation import deviation
from al_leignn.model.committee import Committee
from al_leignn.train.trainer import fit_member
from al_leignn.validate.metrics import errors

MODEL = ModelConfig(cutoff=4.5, features=16, layers=1, radial=6)
MEMBERS = 2
STEPS, WARM_STEPS = 300, 150
LEARNING_RATE = 0.02
"""Ten times the default: a step of Muon has a fixed length, and with the default these few lead to 2.5 times the error."""


def fit(frames: Sequence[LabelledFrame], e0s: dict[int, float], seed: int, folder: Path, before: Path | None = None) -> Committee:
    """Fit the members into `folder`: from scratch, or on from those in `before`."""
    folder.mkdir(parents=True)
    train = TrainConfig(members=MEMBERS, learning_rate=LEARNING_RATE)
    for member in range(MEMBERS):
        fit_member(
            frames,
            MODEL,
            train,
            member=member,
            seed=np.random.SeedSequence(seed, spawn_key=(member, len(frames))),
            e0s=e0s,
            start=None if before is None else before / f"{member}.safetensors",
            out=folder / f"{member}.safetensors",
            steps=STEPS if before is None else WARM_STEPS,
        )
    return Committee.load([folder / f"{member}.safetensors" for member in range(MEMBERS)])


def predict(committee: Committee, frames: Sequence[Frame]) -> list[CommitteePrediction]:
    return committee.predict([frame.atoms for frame in frames])


def maxima(predictions: Sequence[CommitteePrediction]) -> np.ndarray:
    """Model deviation of each frame, eV/Å."""
    return np.array([deviation(p).max for p in predictions])


def calibration(committee: Committee, labelled: Sequence[LabelledFrame]) -> Calibration:
    found = predict(committee, [item.frame for item in labelled])
    true = np.array([frame_errors(p, item.labels).max for p, item in zip(found, labelled, strict=True)])
    return calibrate(true, maxima(found))


def test_errors(committee: Committee, labelled: Sequence[LabelledFrame]) -> dict[str, float]:
    """Force MAE and RMSE (eV/Å) and energy MAE (eV/atom) of the committee's mean."""
    means = [p.mean() for p in predict(committee, [item.frame for item in labelled])]
    found = errors(means, [item.labels for item in labelled], [item.frame.atoms.numbers for item in labelled])
    return {"force_mae": found.force_mae, "force_rmse": found.force_rmse, "energy_mae": found.energy_mae}

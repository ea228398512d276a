"""`al-leignn evaluate`: a committee's predictions against labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from al_leignn.calibration import Calibration, calibrate, frame_errors
from al_leignn.core import CommitteePrediction, LabelledFrame
from al_leignn.deviation import deviation
from al_leignn.validate.metrics import Metrics, errors


@dataclass(frozen=True)
class Evaluation:
    committee: Metrics
    """Of the mean of the members."""
    members: list[Metrics]
    calibration: Calibration | None
    """Of the largest force deviation of a frame; None for a single member."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "committee": self.committee.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }


def evaluate(predictions: Sequence[CommitteePrediction], labelled: Sequence[LabelledFrame]) -> Evaluation:
    """Errors of the mean and of each member, and how far the disagreement can be trusted."""
    labels = [item.labels for item in labelled]
    numbers = [item.frame.atoms.numbers for item in labelled]
    members = [errors([p.member(k) for p in predictions], labels, numbers) for k in range(len(predictions[0].energy))]
    calibration = None
    if len(members) > 1:
        true = np.array([frame_errors(p, label).max for p, label in zip(predictions, labels, strict=True)])
        calibration = calibrate(true, np.array([deviation(p).max for p in predictions]))
    return Evaluation(errors([p.mean() for p in predictions], labels, numbers), members, calibration)

"""Exact resume of a fit: everything it needs to continue as if it had never stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from al_leignn.model.unfinished import load_state, save_state

_KIND = "progress"


@dataclass
class Progress:
    """How far a fit has come. The order of batches needs no place here: it follows from the step and the seed."""

    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_score: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)


def save_progress(path: Path, progress: Progress, tensors: Mapping[str, Tensor], fingerprint: str) -> None:
    """Write progress and tensors; `fingerprint` names the fit, so that no other fit picks them up."""
    save_state(path, _KIND, vars(progress), tensors, fingerprint)


def load_progress(path: Path, fingerprint: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """Progress and tensors of the fit named `fingerprint`; None if the file is missing, damaged or another fit's."""
    found = load_state(path, _KIND, fingerprint)
    try:
        return None if found is None else (Progress(**found[0]), found[1])
    except TypeError:
        return None

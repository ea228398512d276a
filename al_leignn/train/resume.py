"""Exact resume: everything a fit needs to continue as if it had never stopped, in one file that cannot be half written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from al_leignn.store import write_atomic

FORMAT = "1"


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
    metadata = {"format": FORMAT, "fingerprint": fingerprint, "progress": json.dumps(vars(progress))}
    write_atomic(path, save(dict(tensors), metadata=metadata))


def load_progress(path: Path, fingerprint: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """Progress and tensors of the fit named `fingerprint`; None if the file is missing, damaged or another fit's."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("fingerprint")) != (FORMAT, fingerprint):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return Progress(**json.loads(metadata["progress"])), tensors
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None

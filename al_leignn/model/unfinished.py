"""State of a computation that was interrupted (a fit, a batch of walkers), in one file that cannot be half written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from al_leignn.model.checkpoint import digest_tensors
from al_leignn.store import write_atomic

FORMAT = "2"
"""Format 1 had no digest."""


def save_state(path: Path, kind: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor], fingerprint: str) -> None:
    """Write tensors and what is said `about` them (JSON values); `fingerprint` names the computation, `kind` what it is."""
    told = json.dumps(about)
    metadata = {"format": FORMAT, "fingerprint": fingerprint, kind: told, "digest": _digest(told, tensors)}
    write_atomic(path, save(dict(tensors), metadata=metadata))


def load_state(path: Path, kind: str, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """What was written; None if the file is missing, damaged, or of another computation."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("fingerprint")) != (FORMAT, fingerprint):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if metadata["digest"] != _digest(metadata[kind], tensors):
                return None
            return json.loads(metadata[kind]), tensors
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _digest(told: str, tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(f"{told} {digest_tensors(tensors)}".encode()).hexdigest()

"""The label store: every label ever paid for, found again by the structure and the level of theory it is of.

    ROOT/<level>/level.json               what the level of theory is, for people
    ROOT/<level>/<di>/<digest>.json       one label: structure, origin, values, cost, and a checksum over all of it

Campaigns and machines may share one folder: an entry appears whole, by rename, and writers of one key write equal values.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.core import Frame, LabelledFrame, Labels, Origin, structure_digest
from al_leignn.errors import DamagedArtifactError
from al_leignn.store import digest_json, write_atomic

FORMAT = 1
_LEVEL_DIGITS = 12
_DESCRIPTION = "level.json"


class LabelStore:
    """Labels by (structure digest, level of theory). Failed labels are not kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, uid_digest: str, level: str) -> LabelledFrame | None:
        """The labelled frame of a structure (`core.structure_digest`, in full) at a level of theory; None if there is none.

        A damaged entry counts as absent, with a warning that names it: it is paid for again and replaced.
        """
        path = self._path(uid_digest, level)
        try:
            entry = _read(path)
        except FileNotFoundError:
            return None
        except DamagedArtifactError as error:
            warnings.warn(f"{error.what}: {path}; the label is computed again", stacklevel=2)
            return None
        return entry if entry.level == level else None

    def put(self, labelled: LabelledFrame, meta: Mapping[str, float]) -> None:
        """Keep a label. `meta` is what it cost and how it was had; it does not enter any identity."""
        frame, labels = labelled.frame, labelled.labels
        body = {
            "format": FORMAT,
            "level": labelled.level,
            "structure": {
                "numbers": frame.atoms.numbers.tolist(),
                "pbc": frame.atoms.pbc.tolist(),
                "cell": np.asarray(frame.atoms.cell).tolist(),
                "positions": frame.atoms.positions.tolist(),
            },
            "origin": {
                "kind": frame.origin.kind,
                "iteration": frame.origin.iteration,
                "walker": frame.origin.walker,
                "step": frame.origin.step,
                "temperature": frame.origin.temperature,
            },
            "energy": labels.energy,
            "forces": labels.forces.tolist(),
            "stress": None if labels.stress is None else labels.stress.tolist(),
            "meta": dict(meta),
        }
        text = json.dumps(body | {"checksum": digest_json(body)}, sort_keys=True, allow_nan=False)
        write_atomic(self._path(structure_digest(frame.atoms), labelled.level), text + "\n")

    def describe_level(self, level: str, description: Mapping[str, str]) -> None:
        """Say once, beside its labels, what a level of theory is."""
        path = self._folder(level) / _DESCRIPTION
        if not path.exists():
            write_atomic(path, json.dumps({"level": level, **description}, indent=1, sort_keys=True) + "\n")

    def descriptions(self) -> list[dict[str, str]]:
        """What the levels of theory in this store are, in the order of their digests."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.root.glob(f"*/{_DESCRIPTION}"))]

    def __iter__(self) -> Iterator[LabelledFrame]:
        """Every undamaged label, in the order of level and digest."""
        for path in self._entries():
            try:
                yield _read(path)
            except (DamagedArtifactError, FileNotFoundError):
                continue

    def __len__(self) -> int:
        """Number of entries, damaged ones included."""
        return len(self._entries())

    def verify(self) -> list[DamagedArtifactError]:
        """Read every entry; what is wrong with those that are damaged."""
        problems = []
        for path in self._entries():
            try:
                _read(path)
            except DamagedArtifactError as error:
                problems.append(error)
        return problems

    def _folder(self, level: str) -> Path:
        return self.root / level[:_LEVEL_DIGITS]

    def _path(self, digest: str, level: str) -> Path:
        return self._folder(level) / digest[:2] / f"{digest}.json"

    def _entries(self) -> list[Path]:
        # Scratch of write_atomic starts with a dot and has no two-digit folder of its own.
        return sorted(path for path in self.root.glob("*/??/*.json") if not path.name.startswith("."))


def _read(path: Path) -> LabelledFrame:
    """Read an entry and compare it with its checksum, and with the structure and level that its path promises.

    Raises
    ------
    FileNotFoundError
        If there is no entry.
    DamagedArtifactError
        If it is not what was written.
    """
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        if body.pop("checksum") != digest_json(body):
            raise ValueError("checksum differs")
        if body["format"] > FORMAT:
            raise DamagedArtifactError("label of a newer al-leignn", where=str(path), fix="update al-leignn")
        atoms = Atoms(**body["structure"])
        stress = None if body["stress"] is None else np.array(body["stress"], dtype=float)
        labels = Labels(body["energy"], np.array(body["forces"], dtype=float).reshape(-1, 3), stress)
        digest = structure_digest(atoms)
        if path.stem != digest or not body["level"].startswith(path.parent.parent.name):
            raise ValueError("it is of another structure or level of theory")
        return LabelledFrame(Frame(digest[:16], atoms, Origin(**body["origin"])), labels, body["level"])
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        fix = "delete it; the label is computed again when it is asked for"
        raise DamagedArtifactError(f"damaged label ({error})", where=str(path), fix=fix) from None

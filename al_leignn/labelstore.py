"""The label store: every label ever paid for, found again by the structure and the level of theory it is of.

    ROOT/<level>/level.json               what the level of theory is, for people
    ROOT/<level>/.paying                  empty; its bytes are locked, one for each label that is being computed
    ROOT/<level>/<ke>/<key>.json          one label: structure, origin, values, cost, doubts, and a checksum over all of it

The key is of the structure whatever the order of its atoms. Campaigns and machines may share one folder: an entry appears
whole, by rename, writers of one key write equal values, and who wants a label that another is computing can wait for it.
"""

import dataclasses
import fcntl
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.core import Doubt, Frame, LabelledFrame, Labels, Origin, Reason, canonical_order, structure_digest, structure_key
from al_leignn.errors import DamagedArtifactError, InputError
from al_leignn.store import digest_json, write_atomic

FORMAT = 2
"""Format 1 knew no doubts, and named entries by `structure_digest`."""

_LEVEL_DIGITS = 12
_LOCK_DIGITS = 15
"""Of the key, in hexadecimal: as many as fit into the offset of a file."""

_LEVEL = re.compile(r"[0-9a-f]{64}")
"""A digest, and so a name that leads nowhere else: stores are taken in from elsewhere."""
_DESCRIPTION = "level.json"
_LOCKS = ".paying"


@dataclass(frozen=True)
class Entry:
    """One label of the store."""

    labelled: LabelledFrame
    meta: dict[str, float]
    """What it cost and how it was had."""
    doubt: Doubt | None
    """What speaks against it, or spoke against it before it was released."""
    released: bool
    """A person looked at it and believes it."""

    @property
    def quarantined(self) -> bool:
        return self.doubt is not None and not self.released


class LabelStore:
    """Labels by structure (`core.structure_key`) and level of theory. Rejected labels are not kept, quarantined ones are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, frame: Frame, level: str) -> Entry | None:
        """What is known of a frame at a level of theory, its atoms in the order of `frame`; None if nothing is.

        A damaged entry counts as absent, with a warning that names it: it is paid for again and replaced.
        """
        for name in (structure_key(frame.atoms), structure_digest(frame.atoms)):
            path = self._path(name, level)
            try:
                entry = _read(path)
            except FileNotFoundError:
                continue
            except DamagedArtifactError as error:
                warnings.warn(f"{error.what}: {path}; the label is computed again", stacklevel=2)
                continue
            if entry.labelled.level == level:
                return dataclasses.replace(entry, labelled=_in_order_of(frame, entry.labelled))
        return None

    @contextmanager
    def paying(self, frame: Frame, level: str) -> Iterator[None]:
        """Be the only process that computes a label; waits for another that does, on this machine or elsewhere.

        A lock of the operating system, on one byte of a file: it is gone when its holder is, however it died. A file system that
        has no locks makes nobody wait, and two may pay.
        """
        path = self._folder(level) / _LOCKS
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            with suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX, 1, int(structure_key(frame.atoms)[:_LOCK_DIGITS], 16))
            yield

    def put(self, labelled: LabelledFrame, meta: Mapping[str, float], doubt: Doubt | None = None) -> None:
        """Keep a label. `meta` is what it cost and how it was had; it does not enter any identity."""
        self._write(Entry(labelled, dict(meta), doubt, released=False))

    def doubt(self, frame: Frame, level: str, doubt: Doubt) -> None:
        """Put a label that is there into quarantine, unless it has been released from there before."""
        entry = self.find(frame, level)
        if entry is not None and not entry.released:
            self._write(dataclasses.replace(entry, doubt=doubt))

    def release(self, uid: str) -> list[Entry]:
        """Take a label out of quarantine: from now on it is believed. Returns the entries (one for each level of theory).

        Parameters
        ----------
        uid
            Identity of the frame, or its beginning if no other quarantined frame shares it.

        Raises
        ------
        InputError
            If no quarantined label, or more than one frame, is called so.
        """
        found = [entry for entry in self if entry.quarantined and entry.labelled.frame.uid.startswith(uid)]
        uids = sorted({entry.labelled.frame.uid for entry in found})
        if not uid or len(uids) != 1:
            what = f"{len(uids)} quarantined labels begin with {uid!r}" if uids else f"no quarantined label is called {uid!r}"
            fix = f"give more of it: {', '.join(uids[:5])}" if uids else "`al-leignn labels list --quarantined` shows them"
            raise InputError(what, where=str(self.root), fix=fix)
        released = [dataclasses.replace(entry, released=True) for entry in found]
        for entry in released:
            self._write(entry)
        return released

    def describe_level(self, level: str, description: Mapping[str, str]) -> None:
        """Say once, beside its labels, what a level of theory is."""
        path = self._folder(level) / _DESCRIPTION
        if not path.exists():
            write_atomic(path, json.dumps({"level": level, **description}, indent=1, sort_keys=True) + "\n")

    def descriptions(self) -> list[dict[str, str]]:
        """What the levels of theory in this store are, in the order of their digests."""
        found = []
        for path in sorted(self.root.glob(f"*/{_DESCRIPTION}")):
            try:
                description = json.loads(path.read_bytes())
                if _LEVEL.fullmatch(description["level"]):
                    found.append({str(name): str(text) for name, text in description.items()})
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # only a remark for people: labels carry their level themselves
        return found

    def __iter__(self) -> Iterator[Entry]:
        """Every undamaged entry, in the order of level and key."""
        for path in self._entries():
            try:
                yield _read(path)
            except (DamagedArtifactError, FileNotFoundError):
                continue

    def __len__(self) -> int:
        """Number of entries, damaged and quarantined ones included."""
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

    def take_in(self, other: "LabelStore") -> int:
        """Copy what another store has and this one has not; damaged entries stay behind. Returns the number of labels."""
        for description in other.descriptions():
            self.describe_level(description["level"], {k: v for k, v in description.items() if k != "level"})
        taken = 0
        for entry in other:
            if self.find(entry.labelled.frame, entry.labelled.level) is None:
                self._write(entry)
                taken += 1
        return taken

    def _write(self, entry: Entry) -> None:
        frame, labels = entry.labelled.frame, entry.labelled.labels
        body = {
            "format": FORMAT,
            "level": entry.labelled.level,
            "structure": {
                "numbers": frame.atoms.numbers.tolist(),
                "pbc": frame.atoms.pbc.tolist(),
                "cell": np.asarray(frame.atoms.cell).tolist(),
                "positions": frame.atoms.positions.tolist(),
            },
            "origin": asdict(frame.origin),
            "energy": labels.energy,
            "forces": labels.forces.tolist(),
            "stress": None if labels.stress is None else labels.stress.tolist(),
            "meta": entry.meta,
            "doubt": None if entry.doubt is None else asdict(entry.doubt),
            "released": entry.released,
        }
        text = json.dumps(body | {"checksum": digest_json(body)}, sort_keys=True, allow_nan=False)
        write_atomic(self._path(structure_key(frame.atoms), entry.labelled.level), text + "\n")

    def _folder(self, level: str) -> Path:
        return self.root / level[:_LEVEL_DIGITS]

    def _path(self, key: str, level: str) -> Path:
        return self._folder(level) / key[:2] / f"{key}.json"

    def _entries(self) -> list[Path]:
        # Scratch of write_atomic starts with a dot and has no two-digit folder of its own.
        return sorted(path for path in self.root.glob("*/??/*.json") if not path.name.startswith("."))


def _in_order_of(frame: Frame, found: LabelledFrame) -> LabelledFrame:
    """The label for `frame`, which is the same structure as the one that was labelled, atoms perhaps in another order."""
    forces = np.empty_like(found.labels.forces)
    forces[canonical_order(frame.atoms)] = found.labels.forces[canonical_order(found.frame.atoms)]
    return LabelledFrame(frame, dataclasses.replace(found.labels, forces=forces), found.level)


def _read(path: Path) -> Entry:
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
        level = str(body["level"])
        if path.stem not in (structure_key(atoms), digest) or not level.startswith(path.parent.parent.name):
            raise ValueError("it is of another structure or level of theory")
        if not _LEVEL.fullmatch(level):
            raise ValueError("its level of theory is no digest")
        frame = Frame(digest[:16], atoms, Origin(**body["origin"]))
        doubt = body.get("doubt")
        return Entry(
            LabelledFrame(frame, labels, level),
            body["meta"],
            None if doubt is None else Doubt(Reason(doubt["reason"]), doubt["detail"]),
            body.get("released", False),
        )
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        fix = "delete it; the label is computed again when it is asked for"
        raise DamagedArtifactError(f"damaged label ({error})", where=str(path), fix=fix) from None

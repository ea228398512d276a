"""Files: extended XYZ, manifests, digests, and folders that appear whole or not at all.

Publishing a folder: fill a scratch folder beside it, write manifest.json last, fsync everything, rename.
A folder without a readable manifest does not exist as far as the campaign is concerned.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn import __version__
from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import CampaignError, DamagedArtifactError, DataError

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
_SCRATCH = ".scratch-"
_CHECKSUM = "checksum"
"""Key of a manifest's own digest, times included; manifests up to 0.1 have none."""
_COLUMNS = re.compile(r":[RISL]:(\d{4,})")
_MOST_COLUMNS = 1000
_TEXT = "id:"
"""Put before digests in extended XYZ: a bare hex string such as 1e5 would be read back as a number."""


# --- digests ---------------------------------------------------------------------------------------------


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- atomic publication ----------------------------------------------------------------------------------


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a kill at any instant leaves the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / _scratch_name(path.name)
    payload = data.encode() if isinstance(data, str) else data
    try:
        with scratch.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


@contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """Fill the yielded scratch folder; on a clean exit it becomes `folder`, all at once.

    If `folder` was published meanwhile by somebody else, theirs stays and ours is dropped: both were made from
    the same inputs. A folder that is there without a good manifest is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.parent / _scratch_name(folder.name)
    scratch.mkdir()
    try:
        yield scratch
        for file in scratch.rglob("*"):
            _fsync(file)
        _fsync(scratch)
        if folder.exists() and not _has_manifest(folder):
            shutil.rmtree(folder)
        try:
            scratch.rename(folder)
        except OSError:
            if not _has_manifest(folder):
                raise
            shutil.rmtree(scratch)
        _fsync(folder.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _has_manifest(folder: Path) -> bool:
    try:
        return read_manifest(folder) is not None
    except DamagedArtifactError:
        return False


def _scratch_name(name: str) -> str:
    return f"{_SCRATCH}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{name}"


def sweep_scratch(root: Path) -> int:
    """Remove scratch left by dead processes of this host below `root`; returns how many were removed."""
    removed = 0
    mine = f"{_SCRATCH}{socket.gethostname()}-"
    for path in list(root.rglob(f"{mine}*")):
        pid = path.name.removeprefix(mine).split("-", 1)[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            removed += 1
    return removed


@contextmanager
def sweeping_scratch(root: Path) -> Iterator[None]:
    """Sweep before and after: workers of a killed runner may live on for a moment, and be found dead only at the end."""
    sweep_scratch(root)
    try:
        yield
    finally:
        sweep_scratch(root)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# --- manifests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """What a published folder holds and what it was made from. Equal inputs and config: never redone."""

    stage: str
    iteration: int
    item: int
    inputs: dict[str, str]
    """Digest of every input, by name."""
    config: str
    """Digest of the config sections the stage read."""
    seed: list[int]
    """Spawn key of the random numbers: campaign seed, iteration, stage, item."""
    result: dict[str, Any]
    """Small results that planner, status and history read; arrays stay in files."""
    outputs: dict[str, str] = field(default_factory=dict)
    """Digest of every file in the folder, by name."""
    times: dict[str, float] = field(default_factory=dict)
    """wall_s, cpu_s and finished (Unix time): the only part that differs between two equal runs."""
    package: str = __version__
    version: int = MANIFEST_VERSION

    def seal(self, folder: Path) -> None:
        """Write manifest.json into `folder`, with the digests of all files that are there."""
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
        outputs = {str(p.relative_to(folder)): digest_file(p) for p in files}
        body = asdict(self) | {"outputs": outputs}
        text = json.dumps(body | {_CHECKSUM: digest_json(body)}, indent=1, sort_keys=True, allow_nan=False)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    def without_times(self) -> dict[str, Any]:
        return asdict(self) | {"times": {}}


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a published folder; None where nothing is published.

    Raises
    ------
    DamagedArtifactError
        If there is one that cannot be read.
    CampaignError
        If a newer al-leignn wrote it: this one must not take it for damaged, and make it again.
    """
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_bytes())
        if _CHECKSUM in body and body.pop(_CHECKSUM) != digest_json(body):
            raise ValueError("checksum differs")
        manifest = Manifest(**body)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise DamagedArtifactError(f"damaged manifest: {error}", where=str(path), fix="it is redone on the next run") from None
    if manifest.version > MANIFEST_VERSION:
        raise CampaignError(
            f"manifest of a newer al-leignn (format {manifest.version}, this one reads {MANIFEST_VERSION})",
            where=str(path),
            fix="update al-leignn",
        )
    return manifest


def verify(folder: Path) -> None:
    """Check every file of a published folder against its digest; raises `DamagedArtifactError`."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise DamagedArtifactError("nothing is published here", where=str(folder))
    for name, expected in manifest.outputs.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DamagedArtifactError("a manifest names a file outside its folder", where=str(path))
        if not path.is_file() or digest_file(path) != expected:
            raise DamagedArtifactError("file is missing or differs from its digest", where=str(path))


class Stopwatch:
    """Wall and CPU seconds (children included) since it was made."""

    elsewhere_s = 0.0
    """CPU seconds that servers spent for this process so far: they are no children that have ended."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = self._cpu_now()

    @staticmethod
    def _cpu_now() -> float:
        t = os.times()
        return t.user + t.system + t.children_user + t.children_system + Stopwatch.elsewhere_s

    def times(self) -> dict[str, float]:
        return {
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(self._cpu_now() - self._cpu, 3),
            "finished": round(time.time(), 3),
        }


# --- frames ----------------------------------------------------------------------------------------------


def write_frames(path: Path, frames: Iterable[Frame | LabelledFrame]) -> None:
    """Write frames as extended XYZ. Identity and origin go to `info`; labels go to REF_* keys."""
    from ase.io import write

    write(path, [_to_atoms(f) for f in frames], format="extxyz")


def read_frames(path: Path) -> list[Frame]:
    """Read frames written by `write_frames`; labels, if any, are left aside."""
    return [_frame_of(atoms) for atoms in _read_extxyz(path)]


def read_frame(path: Path, index: int) -> Frame:
    """Read one frame of a file written by `write_frames`, without parsing the others."""
    from ase.io import read

    atoms = read(path, index=index, format="extxyz")
    if not isinstance(atoms, Atoms):
        raise DataError(f"there is no single frame {index}", where=str(path))
    return _frame_of(atoms)


def read_labelled(path: Path) -> list[LabelledFrame]:
    """Read labelled frames written by `write_frames`.

    Raises
    ------
    DataError
        If a frame has no labels.
    """
    out = []
    for i, atoms in enumerate(_read_extxyz(path)):
        if "REF_energy" not in atoms.info or "REF_forces" not in atoms.arrays:
            raise DataError(f"frame {i} has no REF_energy and REF_forces", where=str(path))
        stress = atoms.info.get("REF_stress")
        labels = Labels(
            energy=float(atoms.info["REF_energy"]),
            forces=np.asarray(atoms.arrays["REF_forces"], dtype=float),
            stress=None if stress is None else np.asarray(stress, dtype=float).reshape(6),
        )
        out.append(LabelledFrame(_frame_of(atoms), labels, str(atoms.info.get("level", "")).removeprefix(_TEXT)))
    return out


def refuse_endless(lines: Iterable[str]) -> None:
    """Raise `ValueError` on extended XYZ that ASE would read for years: it believes any number of atoms or columns."""
    header = number = 0
    for number, line in enumerate(lines, 1):
        if number <= header:
            if any(int(columns) > _MOST_COLUMNS for columns in _COLUMNS.findall(line)):
                raise ValueError(f"line {number} promises too many columns")
        elif line.strip().isdigit():
            header = number + 1 + int(line)
        elif not line.lstrip().startswith("VEC"):
            return  # no frame begins here: the reader will say so
    if header > number:
        raise ValueError("the last frame has fewer atoms than it promises")


def refuse_endless_file(path: Path) -> None:
    """`refuse_endless` on a file."""
    with path.open(encoding="utf-8") as file:
        refuse_endless(file)


def _read_extxyz(path: Path) -> list[Atoms]:
    if path.stat().st_size == 0:
        return []
    from ase.io import read

    refuse_endless_file(path)
    frames = read(path, ":", format="extxyz")
    return frames if isinstance(frames, list) else [frames]


def _to_atoms(item: Frame | LabelledFrame) -> Atoms:
    frame = item.frame if isinstance(item, LabelledFrame) else item
    atoms: Atoms = frame.atoms.copy()
    origin = frame.origin
    atoms.info = {
        "uid": _TEXT + frame.uid,
        "origin": origin.kind,
        "iteration": origin.iteration,
        "walker": origin.walker,
        "md_step": origin.step,
        "temperature": origin.temperature,
    }
    if isinstance(item, LabelledFrame):
        atoms.info["REF_energy"] = item.labels.energy
        if item.labels.stress is not None:
            atoms.info["REF_stress"] = item.labels.stress
        atoms.info["level"] = _TEXT + item.level
        atoms.new_array("REF_forces", item.labels.forces)
    return atoms


def _frame_of(atoms: Atoms) -> Frame:
    info = atoms.info
    origin = Origin(
        kind=str(info.get("origin", "data")),
        iteration=int(info.get("iteration", 0)),
        walker=int(info.get("walker", 0)),
        step=int(info.get("md_step", 0)),
        temperature=float(info.get("temperature", 0.0)),
    )
    return Frame.of(atoms, origin)

"""Any command that reads one extended XYZ frame and writes one with energy, forces and, if it has it, stress."""

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ase import Atoms

from al_leignn.config import ExternalConfig
from al_leignn.core import Frame, LabelFailure, Labels, Reason
from al_leignn.label.output import NotALabelError, labels_of, require_same
from al_leignn.label.process import NO_SUCH_COMMAND, run_bounded, whole_seconds
from al_leignn.store import digest_json, refuse_endless_file, write_frames

_INPUT, _OUTPUT = "input.extxyz", "output.extxyz"


class ExternalLabeller:
    """Labels frames by a user's command, run without a shell in an empty folder: no file of an earlier run can be mistaken."""

    rungs = 1

    def __init__(self, config: ExternalConfig, cpu_s: int | None = None) -> None:
        self._config = config
        self._cpu_s = cpu_s

    @functools.cached_property
    def level(self) -> str:
        """Digest of the command and the version the user gave it."""
        return digest_json({"command": self._config.command, "version": self._config.version})

    def describe(self) -> dict[str, str]:
        command = " ".join(self._config.command)
        return {"labeller": "external command", "level of theory": command, "code": f"version {self._config.version}"}

    def check(self, species: Iterable[int]) -> list[str]:
        del species
        program, words = self._config.command[0], " ".join(self._config.command)
        missing = [
            f"{p} in labeller.command: it is replaced by the file's name" for p in ("{input}", "{output}") if p not in words
        ]
        if shutil.which(program) is None:
            missing.append(f"the command {program}: install it, or give its full path in labeller.command")
        return missing

    def within(self, cpu_s: float) -> "ExternalLabeller":
        return ExternalLabeller(self._config, whole_seconds(cpu_s))

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """Run the command in `scratch`, an empty folder, and believe its output only if it is of this frame."""
        del rung, tight
        source, target = scratch / _INPUT, scratch / _OUTPUT
        write_frames(source, [frame])
        command = [w.replace("{input}", str(source)).replace("{output}", str(target)) for w in self._config.command]
        done = run_bounded(command, scratch, self._config.time_limit_s, self._cpu_s)
        if done.returncode is None:
            return LabelFailure(frame.uid, Reason.TIMEOUT, f"no result within {self._config.time_limit_s:g} s")
        if done.returncode == NO_SUCH_COMMAND:
            return LabelFailure(frame.uid, Reason.CRASHED, f"there is no command {command[0]}")
        if done.returncode != 0:
            return LabelFailure(frame.uid, done.reason, f"exit {done.returncode}: {done.tail}")
        if not target.is_file() or target.stat().st_size == 0:
            return LabelFailure(frame.uid, Reason.NO_OUTPUT, "the command ended without writing {output}")
        try:
            return read_answer(frame, target)
        except NotALabelError as error:
            return LabelFailure(frame.uid, error.reason, error.detail)


def read_answer(frame: Frame, path: Path) -> Labels:
    """The label of `frame` in an extended XYZ file; raises `NotALabelError` if there is none, or it is of another frame."""
    atoms = read_one(path)
    require_same(frame.atoms, atoms)
    if not _flag(atoms.info.get("converged", True)):
        raise NotALabelError(Reason.UNCONVERGED, "the output says converged=F")
    return labels_of(atoms)


def read_one(path: Path) -> Atoms:
    """The frame in an extended XYZ file; raises `NotALabelError` if there is not exactly one."""
    try:
        from ase.io import read  # slow to load, and `al-leignn check` gets along without

        refuse_endless_file(path)
        frames = read(path, ":", format="extxyz")
    except Exception as error:  # noqa: BLE001 - the reader raises anything on damaged text
        raise NotALabelError(Reason.BAD_OUTPUT, f"it is not extended XYZ: {error}") from None
    if not isinstance(frames, list) or len(frames) != 1:
        raise NotALabelError(Reason.BAD_OUTPUT, f"it has {len(frames)} frames, not 1")
    return frames[0]


def _flag(value: Any) -> bool:
    return str(value).lower() not in {"f", "false", "0", "no"}

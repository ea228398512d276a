"""Any command that reads one extended XYZ frame and writes one with energy, forces and, if it has it, stress."""

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from al_leignn.config import ExternalConfig
from al_leignn.core import Frame, LabelFailure, Labels
from al_leignn.label.process import run_bounded
from al_leignn.store import digest_json, write_frames
from al_leignn.units import voigt

_INPUT, _OUTPUT = "input.extxyz", "output.extxyz"
_NO_SUCH_COMMAND = 127

SAME_PLACE = 1e-4
"""Å. The output must be of the frame that was asked for; codes print positions and cells with fewer digits than they hold."""


class _NotALabelError(Exception):
    """Why an output file is no label of the frame."""


class ExternalLabeller:
    """Labels frames by a user's command, run without a shell in an empty folder: no file of an earlier run can be mistaken."""

    rungs = 1

    def __init__(self, config: ExternalConfig) -> None:
        self._config = config

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

    def label(self, frame: Frame, scratch: Path, rung: int = 0) -> Labels | LabelFailure:
        """Run the command in `scratch`, an empty folder, and believe its output only if it is of this frame."""
        del rung
        source, target = scratch / _INPUT, scratch / _OUTPUT
        write_frames(source, [frame])
        command = [w.replace("{input}", str(source)).replace("{output}", str(target)) for w in self._config.command]
        done = run_bounded(command, scratch, self._config.time_limit_s)
        if done.returncode is None:
            return LabelFailure(frame.uid, "timeout", f"no result within {self._config.time_limit_s:g} s")
        if done.returncode == _NO_SUCH_COMMAND:
            return LabelFailure(frame.uid, "crashed", f"there is no command {command[0]}")
        if done.returncode != 0:
            return LabelFailure(frame.uid, "crashed", f"exit {done.returncode}: {done.tail}")
        if not target.is_file() or target.stat().st_size == 0:
            return LabelFailure(frame.uid, "no output", "the command ended without writing {output}")
        try:
            atoms = _read_one(target)
            _require_same(frame.atoms, atoms)
            if not _flag(atoms.info.get("converged", True)):
                return LabelFailure(frame.uid, "unconverged", "the output says converged=F")
            return _labels_of(atoms)
        except _NotALabelError as error:
            return LabelFailure(frame.uid, "bad output", str(error))


def _read_one(path: Path) -> Atoms:
    try:
        from ase.io import read  # slow to load, and `al-leignn check` gets along without

        frames = read(path, ":", format="extxyz")
    except Exception as error:  # noqa: BLE001 - the reader raises anything on damaged text
        raise _NotALabelError(f"it is not extended XYZ: {error}") from None
    if not isinstance(frames, list) or len(frames) != 1:
        raise _NotALabelError(f"it has {len(frames)} frames, not 1")
    return frames[0]


def _require_same(asked: Atoms, given: Atoms) -> None:
    """Raise `_NotALabelError` unless both are the same atoms in the same order, cell and place (up to lattice vectors)."""
    if list(given.numbers) != list(asked.numbers):
        raise _NotALabelError(f"species or their order differ: {given.symbols} for {asked.symbols}")
    if list(given.pbc) != list(asked.pbc):
        raise _NotALabelError(f"periodicity differs: {given.pbc} for {asked.pbc}")
    off = float(np.abs(np.asarray(given.cell) - np.asarray(asked.cell))[asked.pbc].max(initial=0.0))
    if not off <= SAME_PLACE:
        raise _NotALabelError(f"the cell differs by {off:.2g} Å")
    shift = given.positions - asked.positions
    moved = float(find_mic(shift, asked.cell, asked.pbc)[1].max()) if np.isfinite(shift).all() else float("nan")
    if not moved <= SAME_PLACE:
        raise _NotALabelError(f"positions differ by {moved:.2g} Å: it is of another frame")


def _labels_of(atoms: Atoms) -> Labels:
    found: dict[str, Any] = {} if atoms.calc is None else dict(atoms.calc.results)
    found |= {k.removeprefix("REF_"): v for k, v in (atoms.info | atoms.arrays).items() if k.startswith("REF_")}
    # The free energy, where the code prints both, is the one that the forces are derivatives of.
    energy = found.get("free_energy", found.get("energy"))
    if energy is None or "forces" not in found:
        raise _NotALabelError("it lacks REF_energy and REF_forces (or energy and forces)")
    stress = found.get("stress")
    try:
        six = None if stress is None or not atoms.pbc.all() else _six(np.array(stress, dtype=float))
        return Labels(float(energy), np.array(found["forces"], dtype=float).reshape(-1, 3), six)
    except (TypeError, ValueError) as error:
        raise _NotALabelError(f"energy, forces or stress are not numbers of the right shape: {error}") from None


def _six(stress: np.ndarray) -> np.ndarray:
    if stress.size == 6:
        return stress.reshape(6)
    full = stress.reshape(3, 3)
    if not np.allclose(full, full.T, atol=1e-6):
        raise _NotALabelError("the stress tensor is not symmetric")
    return voigt(full)


def _flag(value: Any) -> bool:
    return str(value).lower() not in {"f", "false", "0", "no"}

"""Labels made elsewhere, by people or machines that this one cannot reach.

    FOLDER/out/<frame>/      inputs of a frame that is waited for; outputs may be brought back right here
    FOLDER/in/               or put here under any name: they are matched by what is in them
    FOLDER/refused/          files from in/ that are of no frame that is waited for, each with the reason beside it

Every output passes the same checks as one that was computed here.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from al_leignn.config import Cp2kConfig, EspressoConfig, MailboxConfig, VaspConfig
from al_leignn.core import Frame, LabelFailure, Labels, Reason, canonical_order
from al_leignn.errors import WaitingError
from al_leignn.label.box import in_box
from al_leignn.label.cp2k import OUTPUT as CP2K_OUTPUT
from al_leignn.label.cp2k import Cp2kLabeller
from al_leignn.label.espresso import OUTPUT as PW_OUTPUT
from al_leignn.label.espresso import EspressoLabeller
from al_leignn.label.external import read_answer, read_one
from al_leignn.label.files import FileLabeller
from al_leignn.label.output import SAME_PLACE, NotALabelError, labels_of
from al_leignn.label.vasp import OUTPUT as VASP_OUTPUT
from al_leignn.label.vasp import VaspLabeller
from al_leignn.store import digest_json, read_frames, write_frames

FRAME = "frame.extxyz"
ANSWER = "answer.extxyz"


HEAD = 20_000
"""Bytes in which a code has said what it is."""

SAME_CELL = 1e-3
"""Å. CP2K prints cells to three decimals; what tells structures apart are places, and outputs are checked when they are read."""


class MailboxLabeller:
    """Leaves inputs, and takes in outputs when they are there; until then the label is waited for."""

    rungs = 1

    def __init__(self, config: MailboxConfig) -> None:
        self._config = config
        self._code, self._output = _code_of(config)
        self._root = Path(config.folder)

    @property
    def level(self) -> str:
        """Digest of what the user says of the level of theory, and of the code's settings."""
        theory = None if self._code is None else {"code": self._code.code, "theory": self._code.theory()}
        return digest_json({"mailbox": self._config.level, "code": theory})

    def describe(self) -> dict[str, str]:
        written = "as told" if self._code is None else self._code.code
        theory = "; ".join(filter(None, (self._config.level, "" if self._code is None else self._code.summary())))
        return {"labeller": f"mailbox {self._root}", "level of theory": theory, "code": f"{written}, run elsewhere"}

    def check(self, species: Iterable[int]) -> list[str]:
        """Nothing runs here; only what inputs need is looked for."""
        return [] if self._code is None else self._code.missing_files(species)

    def within(self, cpu_s: float) -> "MailboxLabeller":
        """Itself: what others compute is not counted here."""
        del cpu_s
        return self

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """The label that has been brought back for `frame`.

        Raises
        ------
        WaitingError
            If there is none yet; its inputs are there.
        """
        del rung, scratch
        folder = self._root / "out" / (frame.uid + "-tight" * tight)
        self._root.mkdir(parents=True, exist_ok=True)
        with _alone(self._root / ".lock"):
            if not folder.is_dir():
                self._leave(frame, folder, tight=tight)
            if not (folder / self._output).is_file():
                self._sort_in()
        if not (folder / self._output).is_file():
            raise WaitingError(
                f"the label of frame {frame.uid} is waited for",
                where=str(folder),
                fix=f"run its inputs, put {self._output} there (or outputs under any name into {self._root / 'in'}), run again",
            )
        try:
            if self._code is None:
                return read_answer(frame, folder / self._output)
            return self._code.read_output(frame, folder)
        except NotALabelError as error:
            return LabelFailure(frame.uid, error.reason, error.detail)

    def _leave(self, frame: Frame, folder: Path, *, tight: bool) -> None:
        """Write the inputs; the folder appears whole."""
        (self._root / "in").mkdir(exist_ok=True)
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
            new = Path(name) / folder.name
            new.mkdir()
            write_frames(new / FRAME, [frame])
            if self._code is not None:
                self._code.write_input(frame, new, tight=tight)
            new.rename(folder)

    def _sort_in(self) -> None:
        """Bring every file of in/ to the frame it is of, or to refused/."""
        arrived = [path for path in sorted((self._root / "in").rglob("*")) if path.is_file() and not path.name.startswith(".")]
        waiting = {
            folder: frame
            for folder in sorted((self._root / "out").iterdir())
            if arrived and (folder / FRAME).is_file() and not (folder / self._output).is_file()
            for frame in read_frames(folder / FRAME)
        }
        for path in arrived:
            problem = self._deliver(path, waiting)
            if problem:
                refused = self._root / "refused"
                refused.mkdir(exist_ok=True)
                (refused / f"{path.name}.reason.txt").write_text(problem + "\n", encoding="utf-8")
                shutil.move(path, refused / path.name)

    def _deliver(self, path: Path, waiting: dict[Path, Frame]) -> str:
        """Put an output where it belongs; what is wrong with it where that cannot be told."""
        try:
            given = self._structure_in(path)
        except NotALabelError as error:
            return error.detail
        for folder, frame in waiting.items():
            if _same_structure(in_box(frame.atoms, self._vacuum()), given):
                shutil.move(path, folder / self._output)
                del waiting[folder]
                return ""
        return "it is of no frame that is waited for"

    def _structure_in(self, path: Path) -> Atoms:
        """The structure that an output is of; raises `NotALabelError` for other files, such as inputs that came back too."""
        if self._code is None:
            given = read_one(path)
            labels_of(given)
            return given
        with path.open("rb") as file:
            if self._code.signature.encode() not in file.read(HEAD):
                raise NotALabelError(Reason.BAD_OUTPUT, f"it is no {self._output} of {self._code.code}")
        try:
            return self._code.structure_in(path)
        except Exception as error:  # noqa: BLE001 - readers raise anything on damaged text
            raise NotALabelError(Reason.BAD_OUTPUT, f"it cannot be read: {error}") from None

    def _vacuum(self) -> float:
        code = self._config.code
        return 0.0 if code is None else code.vacuum


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time looks through the mailbox."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _code_of(config: MailboxConfig) -> tuple[FileLabeller[Any] | None, str]:
    """The code whose inputs are written, and the name of its output."""
    match config.code:
        case EspressoConfig() as code:
            return EspressoLabeller(code), PW_OUTPUT
        case Cp2kConfig() as code:
            return Cp2kLabeller(code), CP2K_OUTPUT
        case VaspConfig() as code:
            return VaspLabeller(code), VASP_OUTPUT
        case None:
            return None, ANSWER


def _same_structure(asked: Atoms, given: Atoms) -> bool:
    """Whether both are the same structure, whatever the order of the atoms and the lattice vectors between them."""
    if sorted(asked.numbers) != sorted(given.numbers):
        return False
    if asked.pbc.any() and float(np.abs(np.asarray(asked.cell) - np.asarray(given.cell))[asked.pbc].max()) > SAME_CELL:
        return False
    left = list(canonical_order(given))
    for number, position in zip(asked.numbers, asked.positions, strict=True):
        found = [n for n in left if given.numbers[n] == number]
        shifts = given.positions[found] - position
        distances = find_mic(shifts, asked.cell, asked.pbc)[1] if asked.pbc.any() else np.linalg.norm(shifts, axis=1)
        nearest = int(np.argmin(distances))
        if distances[nearest] > SAME_PLACE:
            return False
        left.remove(found[nearest])
    return True

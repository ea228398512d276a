"""What labellers have in common whose code reads input files and writes output files, run here or elsewhere."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from al_leignn.core import Frame, LabelFailure, Labels, Reason
from al_leignn.label.output import NotALabelError
from al_leignn.label.process import run_bounded
from al_leignn.label.rescue import LADDER
from al_leignn.store import digest_json

_NO_SUCH_COMMAND = 127

# How the result is computed, not what it is: left out of the level of theory.
ROUTE = frozenset({"command", "time_limit_s", "max_scf", "mixer_beta", "pseudo_dir", "data_dir", "potcar_dir"})


class FileLabeller(ABC):
    """Writes inputs, runs a command in an empty folder, reads its output: no file of an earlier run can be mistaken."""

    rungs = len(LADDER)
    code: ClassVar[str]

    @abstractmethod
    def write_input(self, frame: Frame, folder: Path, rung: int = 0, *, tight: bool = False) -> None:
        """Write all that the code needs for `frame` into `folder`."""

    @abstractmethod
    def read_output(self, frame: Frame, folder: Path) -> Labels:
        """The label of `frame` from what the code left in `folder`.

        Raises
        ------
        NotALabelError
            If the SCF did not converge, or the output is none of this frame or level of theory.
        """

    @abstractmethod
    def words(self) -> list[str]:
        """The command, run in the folder of the inputs."""

    @abstractmethod
    def theory(self) -> dict[str, Any]:
        """What the results depend on, version of the code included; JSON-safe."""

    @abstractmethod
    def summary(self) -> str:
        """Level of theory in one line."""

    @abstractmethod
    def check(self, species: Iterable[int]) -> list[str]:
        """What is missing on this machine for these atomic numbers, each with how to install it."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the code; raises `LabellerError` if there is none to ask."""

    @property
    @abstractmethod
    def time_limit_s(self) -> float: ...

    @property
    def level(self) -> str:
        """Digest of the level of theory and the code's version."""
        return digest_json({"code": self.code, "version": self.version, "theory": self.theory()})

    def describe(self) -> dict[str, str]:
        settings = json.dumps(self.theory(), sort_keys=True)
        return {
            "labeller": self.code,
            "level of theory": self.summary(),
            "code": f"{self.code} {self.version}",
            "settings": settings,
        }

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """One attempt in `scratch`, an empty folder, with the settings of a rung of the rescue ladder."""
        self.write_input(frame, scratch, rung, tight=tight)
        done = run_bounded(self.words(), scratch, self.time_limit_s)
        if done.returncode is None:
            return LabelFailure(frame.uid, Reason.TIMEOUT, f"no result within {self.time_limit_s:g} s")
        if done.returncode == _NO_SUCH_COMMAND:
            return LabelFailure(frame.uid, Reason.CRASHED, f"there is no command {self.words()[0]}")
        try:
            labels = self.read_output(frame, scratch)
        except NotALabelError as error:
            # An SCF that does not converge ends some codes with an error of their own: its reason is the better one.
            if done.returncode == 0 or error.reason is Reason.UNCONVERGED:
                return LabelFailure(frame.uid, error.reason, error.detail)
            return LabelFailure(frame.uid, Reason.CRASHED, f"exit {done.returncode}: {last_line(done.tail)}")
        if done.returncode != 0:
            return LabelFailure(frame.uid, Reason.CRASHED, f"exit {done.returncode}: {last_line(done.tail)}")
        return labels


def text_of(path: Path) -> str:
    """The text of an output file; raises `NotALabelError` where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    if not text.strip():
        raise NotALabelError(Reason.NO_OUTPUT, f"there is nothing in {path.name}")
    return text


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" %=*\t")]
    return lines[-1] if lines else "it printed nothing"


def missing_files(folder: str, names: Sequence[str], where: str) -> list[str]:
    return [f"{Path(folder) / name}: named in {where}" for name in names if not (Path(folder) / name).is_file()]

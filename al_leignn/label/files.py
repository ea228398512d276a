"""What labellers have in common whose code reads input files and writes output files, run here or elsewhere."""

import functools
import json
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from ase import Atoms

from al_leignn.config import Cp2kConfig, EspressoConfig, VaspConfig
from al_leignn.core import Frame, LabelFailure, Labels, Reason
from al_leignn.errors import LabellerError
from al_leignn.label.output import NotALabelError
from al_leignn.label.process import NO_SUCH_COMMAND, run_bounded, whole_seconds
from al_leignn.label.rescue import LADDER
from al_leignn.store import digest_file, digest_json

# How the result is computed, not what it is: left out of the level of theory.
ROUTE = frozenset({"command", "time_limit_s", "max_scf", "mixer_beta", "pseudo_dir", "data_dir", "potcar_dir"})


Config = TypeVar("Config", bound=EspressoConfig | Cp2kConfig | VaspConfig)


class FileLabeller(ABC, Generic[Config]):
    """Writes inputs, runs a command in an empty folder, reads its output: no file of an earlier run can be mistaken."""

    rungs = len(LADDER)
    code: ClassVar[str]
    signature: ClassVar[str]
    """Words in the first lines of every output of the code, and in no other of its files."""

    def __init__(self, config: Config, cpu_s: int | None = None) -> None:
        self._config = config
        self._cpu_s = cpu_s

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
    def structure_in(self, path: Path) -> Atoms:
        """The structure, in its box, that an output is of; may raise anything on damaged text."""

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
    def missing_command(self) -> list[str]:
        """What keeps the code from running on this machine, with how to install it."""

    @abstractmethod
    def missing_files(self, species: Iterable[int]) -> list[str]:
        """What inputs for these atomic numbers lack, each with how to install it."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Version of the code; raises `LabellerError` if there is none to ask."""

    def check(self, species: Iterable[int]) -> list[str]:
        """What is missing on this machine for these atomic numbers, each with how to install it."""
        return self.missing_command() + self.missing_files(species)

    def settings(self) -> dict[str, Any]:
        """Settings that results depend on; JSON-safe."""
        return {k: v for k, v in self._config.model_dump(mode="json").items() if k not in ROUTE}

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

    def complaint(self, folder: Path, tail: str) -> str:
        """What the code says of its bad end, in one line; `tail` is the end of what it printed."""
        del folder
        return last_line(tail)

    def within(self, cpu_s: float) -> Self:
        return type(self)(self._config, whole_seconds(cpu_s))

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """One attempt in `scratch`, an empty folder, with the settings of a rung of the rescue ladder."""
        self.write_input(frame, scratch, rung, tight=tight)
        done = run_bounded(self.words(), scratch, self._config.time_limit_s, self._cpu_s)
        if done.returncode is None:
            return LabelFailure(frame.uid, Reason.TIMEOUT, f"no result within {self._config.time_limit_s:g} s")
        if done.returncode == NO_SUCH_COMMAND:
            return LabelFailure(frame.uid, Reason.CRASHED, f"there is no command {self.words()[0]}")
        try:
            labels = self.read_output(frame, scratch)
        except NotALabelError as error:
            # An SCF that does not converge ends some codes with an error of their own: its reason is the better one.
            if done.returncode == 0 or error.reason is Reason.UNCONVERGED:
                return LabelFailure(frame.uid, error.reason, error.detail)
            return LabelFailure(frame.uid, done.reason, f"exit {done.returncode}: {self.complaint(scratch, done.tail)}")
        if done.returncode != 0:
            return LabelFailure(frame.uid, done.reason, f"exit {done.returncode}: {self.complaint(scratch, done.tail)}")
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
    lines = [line.strip() for line in text.splitlines() if line.strip(" %=*-\t")]
    return lines[-1] if lines else "it printed nothing"


def digest_in(folder: str, name: str) -> str:
    """Digest of a file that results depend on; says so where it is absent."""
    path = Path(folder) / name
    return digest_file(path) if path.is_file() else f"absent: {name}"


@functools.cache
def printed_version(words: tuple[str, ...], pattern: str) -> str | None:
    """Version of a code, found by `pattern` in what it prints; None if it does not run."""
    if shutil.which(words[0]) is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:  # pw.x leaves a file CRASH behind
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=folder, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(pattern, done.stdout)
    return None if found is None else found[1]


def required_version(found: str | None, command: Sequence[str], package: str) -> str:
    """The version found; raises `LabellerError` where the command does not run."""
    if found is None:
        fix = f"apt-get install {package}, or give the full path in labeller.command"
        raise LabellerError(f"{' '.join(command)} does not run", where="labeller.command", fix=fix)
    return found


def absent_files(folder: str, names: Sequence[str], where: str) -> list[str]:
    return [f"{Path(folder) / name}: named in {where}" for name in names if not (Path(folder) / name).is_file()]

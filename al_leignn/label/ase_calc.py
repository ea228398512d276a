"""Any ASE calculator, by import path: EMT, tight binding, another potential as teacher."""

import functools
import importlib
import io
import json
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from al_leignn.config import AseConfig
from al_leignn.core import Frame, LabelFailure, Labels, Reason
from al_leignn.errors import LabellerError
from al_leignn.store import digest_json


class _TimeLimitError(Exception):
    def __init__(self, timer: int) -> None:
        super().__init__(timer)
        self.timer = timer


class AseLabeller:
    """Labels frames in this process, with a new calculator for each, so that none inherits another's state.

    Quick calculators would spend most of a process of their own on starting it. The price: the time limit is an alarm, which
    ends Python code and waiting for other programs, but not a compiled routine that never returns. Codes that may hang so are
    better run with the external labeller.
    """

    rungs = 1

    def __init__(self, config: AseConfig, cpu_s: float = math.inf) -> None:
        self._config = config
        self._cpu_s = cpu_s

    @functools.cached_property
    def level(self) -> str:
        """Digest of the calculator, its arguments and the version of the package it is from."""
        config = self._config
        return digest_json({"calculator": config.calculator, "arguments": config.arguments, "version": self._version})

    def describe(self) -> dict[str, str]:
        arguments = json.dumps(self._config.arguments, sort_keys=True)
        return {"labeller": "ASE calculator", "level of theory": f"{self._config.calculator} {arguments}", "code": self._version}

    def check(self, species: Iterable[int]) -> list[str]:
        """Whether the calculator can be made; which elements it knows is its own secret until it is asked."""
        del species
        try:
            self.calculator()
        except LabellerError as error:
            return [f"{error.what}: {error.fix}"]
        return []

    def within(self, cpu_s: float) -> "AseLabeller":
        return AseLabeller(self._config, cpu_s)

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """Energy, forces and, where the calculator and the cell allow it, stress. Files go to `scratch`."""
        del rung, tight
        atoms = frame.atoms.copy()
        atoms.calc = self.calculator()
        if hasattr(atoms.calc, "directory"):
            atoms.calc.directory = str(scratch)
        try:
            with _alarm(signal.ITIMER_REAL, self._config.time_limit_s), _alarm(signal.ITIMER_PROF, self._cpu_s), _silence():
                try:
                    energy = atoms.get_potential_energy(force_consistent=True)
                except PropertyNotImplementedError:
                    energy = atoms.get_potential_energy()
                forces = atoms.get_forces()
                stress = stress_of(atoms)
        except _TimeLimitError as limit:
            if limit.timer == signal.ITIMER_PROF:
                return LabelFailure(frame.uid, Reason.BUDGET)
            return LabelFailure(frame.uid, Reason.TIMEOUT, f"no result within {self._config.time_limit_s:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a foreign calculator raises, it is this label that failed
            return LabelFailure(frame.uid, Reason.CRASHED, f"{type(error).__name__}: {error}".strip().splitlines()[0])
        return Labels(float(energy), np.array(forces, dtype=float), stress)

    @functools.cached_property
    def _version(self) -> str:
        package = self._config.calculator.partition(".")[0].partition(":")[0]
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            names = metadata.packages_distributions().get(package, [])
            return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names))) or f"{package}, version unknown"

    def calculator(self) -> Any:
        """A new calculator; raises `LabellerError` where it cannot be made."""
        path = self._config.calculator
        module, _, name = path.partition(":")
        if not module or not name:
            raise LabellerError(f"{path!r} is no import path", fix='write it as "package.module:Class"')
        try:
            with _silence():
                make: Callable[..., Any] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            fix = f"pip install the package that has it ({error})"
            raise LabellerError(f"there is no calculator {path}", where="labeller.calculator", fix=fix) from None
        try:
            with _silence():
                return make(**self._config.arguments)
        except Exception as error:  # noqa: BLE001 - foreign constructors raise anything
            what = f"{path} cannot be made with these arguments"
            raise LabellerError(what, where="labeller.arguments", fix=f"{type(error).__name__}: {error}") from None


def stress_of(atoms: Atoms) -> np.ndarray | None:
    """Stress by the calculator of the atoms, eV/Å^3, Voigt; None where cell or calculator have none."""
    if not atoms.pbc.all():
        return None
    try:
        return np.array(atoms.get_stress(), dtype=float)
    except (PropertyNotImplementedError, NotImplementedError):
        return None


def _silence() -> redirect_stdout[io.StringIO]:
    """Standard output belongs to the command that is run, and may have to be JSON: many calculators talk."""
    return redirect_stdout(io.StringIO())


@contextmanager
def _alarm(timer: int, seconds: float) -> Iterator[None]:
    """Raise `_TimeLimitError` in the body after `seconds`. Signals reach only the main thread: elsewhere there is no limit.

    Parameters
    ----------
    timer
        signal.ITIMER_REAL for wall time, signal.ITIMER_PROF for CPU time of this process.
    """
    if math.isinf(seconds) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, where: FrameType | None) -> None:
        del number, where
        raise _TimeLimitError(timer)

    number = signal.SIGALRM if timer == signal.ITIMER_REAL else signal.SIGPROF
    previous = signal.signal(number, ring)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0.0)
        signal.signal(number, previous)

"""Any ASE calculator as labeller: its own numbers, bounded in time, its failures as values."""

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from al_leignn.config import AseConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin
from al_leignn.label.ase_calc import AseLabeller

EMT_PATH = "ase.calculators.emt:EMT"


class Odd(Calculator):
    """A calculator without stress and free energy that sleeps, fails or talks as it is told."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's way

    def __init__(self, sleep: float = 0.0, fail: str = "", talk: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sleep, self._fail, self._talk = sleep, fail, talk
        sys.stdout.write(talk)

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        time.sleep(self._sleep)
        sys.stdout.write(self._talk)
        if self._fail:
            raise RuntimeError(self._fail)
        self.results = {"energy": 1.5, "forces": np.zeros((len(atoms), 3))}


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> str:
    """Import path of `Odd`."""
    module = type(sys)("odd_calculator")
    module.__dict__["Odd"] = Odd
    monkeypatch.setitem(sys.modules, "odd_calculator", module)
    return "odd_calculator:Odd"


def frame_of(atoms: Any) -> Frame:
    return Frame.of(atoms, Origin("given"))


def copper() -> Frame:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    return frame_of(atoms)


def test_numbers_are_the_calculators_own(tmp_path: Path) -> None:
    frame = copper()
    labels = AseLabeller(AseConfig(calculator=EMT_PATH)).label(frame, tmp_path)
    assert isinstance(labels, Labels)
    atoms = frame.atoms.copy()
    atoms.calc = EMT()
    assert labels.energy == atoms.get_potential_energy(force_consistent=True)
    np.testing.assert_array_equal(labels.forces, atoms.get_forces())
    assert labels.stress is not None
    np.testing.assert_array_equal(labels.stress, atoms.get_stress())
    assert frame.atoms.calc is None


def test_no_stress_without_a_periodic_cell(tmp_path: Path) -> None:
    labels = AseLabeller(AseConfig(calculator=EMT_PATH)).label(frame_of(molecule("H2O")), tmp_path)
    assert isinstance(labels, Labels)
    assert labels.stress is None


def test_a_calculator_may_lack_stress_and_free_energy(tmp_path: Path, odd: str) -> None:
    labels = AseLabeller(AseConfig(calculator=odd)).label(copper(), tmp_path)
    assert isinstance(labels, Labels)
    assert (labels.energy, labels.stress) == (1.5, None)


def test_an_element_the_calculator_does_not_know_is_a_failure(tmp_path: Path) -> None:
    result = AseLabeller(AseConfig(calculator=EMT_PATH)).label(frame_of(bulk("U", "fcc", a=4.5)), tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason == "crashed"
    assert "EMT" in result.detail or "U" in result.detail


def test_whatever_it_raises_is_a_failure(tmp_path: Path, odd: str) -> None:
    result = AseLabeller(AseConfig(calculator=odd, arguments={"fail": "out of licences\nmore"})).label(copper(), tmp_path)
    assert isinstance(result, LabelFailure)
    assert (result.reason, result.detail) == ("crashed", "RuntimeError: out of licences")


def test_a_hang_ends_at_the_time_limit(tmp_path: Path, odd: str) -> None:
    labeller = AseLabeller(AseConfig(calculator=odd, arguments={"sleep": 30}, time_limit_s=0.2))
    start = time.monotonic()
    result = labeller.label(copper(), tmp_path)
    assert time.monotonic() - start < 5
    assert isinstance(result, LabelFailure)
    assert result.reason == "timeout"


def test_works_outside_the_main_thread(tmp_path: Path) -> None:
    results: list[Labels | LabelFailure] = []
    labeller = AseLabeller(AseConfig(calculator=EMT_PATH))
    thread = threading.Thread(target=lambda: results.append(labeller.label(copper(), tmp_path)))
    thread.start()
    thread.join()
    assert isinstance(results[0], Labels)


@pytest.mark.parametrize("path", ["ase.calculators.emt:NoSuch", "no_such_package.x:Y", "ase.calculators.emt", ":", "x:"])
def test_check_names_a_calculator_that_is_not_there(path: str) -> None:
    (problem,) = AseLabeller(AseConfig(calculator=path)).check([29])
    assert path in problem


def test_check_names_wrong_arguments(odd: str) -> None:
    (problem,) = AseLabeller(AseConfig(calculator=odd, arguments={"colour": "red"})).check([29])
    assert "colour" in problem
    assert AseLabeller(AseConfig(calculator=EMT_PATH)).check([29]) == []


def test_level_follows_calculator_and_arguments() -> None:
    one, two = AseConfig(calculator=EMT_PATH), AseConfig(calculator=EMT_PATH, arguments={"asap_cutoff": True})
    assert AseLabeller(one).level == AseLabeller(one.model_copy(update={"time_limit_s": 1.0})).level
    assert AseLabeller(one).level != AseLabeller(two).level
    assert "ase" in AseLabeller(one).describe()["code"]


def test_what_a_calculator_prints_goes_nowhere(odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = AseLabeller(AseConfig(calculator=odd, arguments={"talk": "SCF step 1"})).label(copper(), tmp_path)
    assert isinstance(labels, Labels)
    assert capsys.readouterr().out == ""

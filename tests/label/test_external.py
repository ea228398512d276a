"""An external command's output is believed only if it is a label of the frame that was asked for."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import voigt_6_to_full_3x3_stress

from al_leignn.config import ExternalConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.label.external import ExternalLabeller

Edit = Callable[[Atoms], Any]


def answer(frame: Frame, edit: Edit) -> Atoms:
    """What a faithful code would write for the frame, after `edit`."""
    atoms: Atoms = frame.atoms.copy()
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = None
    atoms.info = {"REF_energy": energy, "REF_stress": stress}
    atoms.arrays["REF_forces"] = forces
    edit(atoms)
    return atoms


def copier(tmp_path: Path, frame: Frame, edit: Edit) -> ExternalLabeller:
    """A labeller whose command writes the edited answer."""
    path = tmp_path / "answer to copy.extxyz"
    write(path, answer(frame, edit), format="extxyz")
    return ExternalLabeller(ExternalConfig(command=["cp", str(path), "{output}"]))


def plain_keys(atoms: Atoms) -> None:
    results = {
        "energy": atoms.info.pop("REF_energy"),
        "stress": atoms.info.pop("REF_stress"),
        "forces": atoms.arrays.pop("REF_forces"),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)


def square_stress(atoms: Atoms) -> None:
    atoms.info["REF_stress"] = voigt_6_to_full_3x3_stress(atoms.info["REF_stress"])


def other_image(atoms: Atoms) -> None:
    atoms.positions += atoms.cell[0] + 1e-5
    atoms.info["converged"] = True


@pytest.fixture
def frame() -> Frame:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[1] = "Ag"
    atoms.rattle(0.1, seed=1)
    return Frame.of(atoms, Origin("rattle"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("edit", [lambda atoms: atoms, plain_keys, square_stress, other_image])
def test_a_true_label_comes_through(tmp_path: Path, frame: Frame, scratch: Path, edit: Edit) -> None:
    labels = copier(tmp_path, frame, edit).label(frame, scratch)
    assert isinstance(labels, Labels), labels
    atoms = frame.atoms.copy()
    atoms.calc = EMT()
    assert labels.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-6)
    assert labels.stress is not None
    np.testing.assert_allclose(labels.stress, atoms.get_stress(), atol=1e-6)


def test_the_command_reads_the_frame_itself(tmp_path: Path, frame: Frame, scratch: Path) -> None:
    script = tmp_path / "code with spaces.py"
    script.write_text(
        "import sys\n"
        "lines = open(sys.argv[1]).read().splitlines()\n"
        "head = lines[1].replace('pos:R:3', 'pos:R:3:REF_forces:R:3') + ' REF_energy=-1.25'\n"
        "body = [line + ' 0 0 0' for line in lines[2:]]\n"
        "open(sys.argv[2], 'w').write('\\n'.join([lines[0], head, *body]))\n"
    )
    labeller = ExternalLabeller(ExternalConfig(command=[sys.executable, str(script), "{input}", "{output}"]))
    labels = labeller.label(frame, scratch)
    assert isinstance(labels, Labels), labels
    assert labels.energy == -1.25
    assert labels.stress is None


WRONG_ANSWERS: dict[str, tuple[Reason, Edit]] = {
    "wrong atom order": (Reason.WRONG_ATOMS, lambda atoms: setattr(atoms, "numbers", atoms.numbers[::-1])),
    "moved atom": (Reason.OTHER_FRAME, lambda atoms: atoms.positions.__iadd__(np.eye(4, 3) * 0.01)),
    "position not a number": (Reason.OTHER_FRAME, lambda atoms: atoms.positions.fill(np.nan)),
    "wrong cell": (Reason.WRONG_CELL, lambda atoms: atoms.set_cell(atoms.cell * 1.01)),
    "periodicity lost": (Reason.WRONG_CELL, lambda atoms: atoms.set_pbc(False)),
    "atom lost": (Reason.WRONG_ATOMS, lambda atoms: atoms.__delitem__(3)),
    "no forces": (Reason.INCOMPLETE, lambda atoms: atoms.arrays.pop("REF_forces")),
    "no energy": (Reason.INCOMPLETE, lambda atoms: atoms.info.pop("REF_energy")),
    "energy in words": (Reason.BAD_OUTPUT, lambda atoms: atoms.info.update(REF_energy="low")),
    "crooked stress": (Reason.BAD_OUTPUT, lambda atoms: atoms.info.update(REF_stress=np.arange(9.0).reshape(3, 3))),
    "stress of five": (Reason.BAD_OUTPUT, lambda atoms: atoms.info.update(REF_stress=np.arange(5.0))),
}


@pytest.mark.parametrize("fault", WRONG_ANSWERS)
def test_an_answer_to_another_question_is_refused(tmp_path: Path, frame: Frame, scratch: Path, fault: str) -> None:
    reason, edit = WRONG_ANSWERS[fault]
    result = copier(tmp_path, frame, edit).label(frame, scratch)
    assert isinstance(result, LabelFailure), fault
    assert (result.uid, result.reason) == (frame.uid, reason), result
    assert result.detail


def test_an_unconverged_answer_is_refused(tmp_path: Path, frame: Frame, scratch: Path) -> None:
    result = copier(tmp_path, frame, lambda atoms: atoms.info.update(converged=False)).label(frame, scratch)
    assert isinstance(result, LabelFailure)
    assert result.reason == "unconverged"


def test_a_partial_or_doubled_file_is_refused(tmp_path: Path, frame: Frame, scratch: Path) -> None:
    labeller = copier(tmp_path, frame, lambda atoms: atoms)
    path = tmp_path / "answer to copy.extxyz"
    whole = path.read_bytes()
    for content in (whole[:-150], whole[:30], whole + whole, bytes(range(256))):
        path.write_bytes(content)
        result = labeller.label(frame, scratch)
        assert isinstance(result, LabelFailure), content
        assert result.reason == "bad output", result


PROCESS_FAULTS = {
    "crash": ("import sys; print('trying', sys.argv[1]); sys.exit('disk quota')", "crashed", "disk quota"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "killed", "137"),
    "hang": ("import time; time.sleep(60)", "timeout", "1 s"),
    "no output": ("", "no output", ""),
    "empty output": ("import sys; open(sys.argv[2], 'w').close()", "no output", ""),
}


@pytest.mark.parametrize("fault", PROCESS_FAULTS)
def test_a_failing_command_is_named(frame: Frame, scratch: Path, fault: str) -> None:
    code, reason, words = PROCESS_FAULTS[fault]
    command = [sys.executable, "-c", code, "{input}", "{output}"]
    result = ExternalLabeller(ExternalConfig(command=command, time_limit_s=1.0)).label(frame, scratch)
    assert isinstance(result, LabelFailure), fault
    assert (result.uid, result.reason) == (frame.uid, reason), result
    assert words in result.detail
    assert str(scratch) not in result.detail  # equal failures say equal things


def test_no_such_command(frame: Frame, scratch: Path) -> None:
    lost = ExternalLabeller(ExternalConfig(command=["no-such-code", "{input}", "{output}"]))
    result = lost.label(frame, scratch)
    assert isinstance(result, LabelFailure)
    assert result.reason == "crashed"
    assert "no-such-code" in result.detail
    assert any("no-such-code" in line for line in lost.check([14]))


def test_check_wants_both_placeholders() -> None:
    assert ExternalLabeller(ExternalConfig(command=[sys.executable, "{input}", "{output}"])).check([14]) == []
    assert len(ExternalLabeller(ExternalConfig(command=[sys.executable])).check([14])) == 2


def test_level_follows_command_and_version() -> None:
    levels = {
        ExternalLabeller(ExternalConfig(command=[word], version=version, time_limit_s=limit)).level
        for word in ("a", "b")
        for version in ("1", "2")
        for limit in (1.0, 2.0)
    }
    assert len(levels) == 4

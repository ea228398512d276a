"""Labels made elsewhere: inputs go out, outputs come back by place or by content, and a campaign waits and says for what."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write

from al_leignn.config import MailboxConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.errors import WaitingError
from al_leignn.label.base import make_labeller

AL = Path(sys.executable).with_name("al-leignn")


def frame_of(seed: int) -> Frame:
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[0] = "Ag"
    atoms.rattle(0.1, seed=seed)
    return Frame.of(atoms, Origin("rattle"))


def answered(atoms: Atoms, **info: Any) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = EMT()
    results = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = None
    atoms.info = {"REF_energy": results[0], "REF_stress": results[2], **info}
    atoms.arrays["REF_forces"] = results[1]
    return atoms


def box(folder: Path, **keys: Any) -> MailboxConfig:
    return MailboxConfig.model_validate({"folder": str(folder / "mailbox"), "level": "EMT by hand"} | keys)


def ask(config: MailboxConfig, frame: Frame) -> Labels | LabelFailure:
    return make_labeller(config).label(frame, Path())


def test_inputs_go_out_and_the_answer_comes_in(tmp_path: Path) -> None:
    config, frame = box(tmp_path), frame_of(1)
    with pytest.raises(WaitingError, match=frame.uid) as waiting:
        ask(config, frame)
    assert "answer.extxyz" in waiting.value.fix
    out = tmp_path / "mailbox" / "out" / frame.uid
    asked = read(out / "frame.extxyz")
    assert isinstance(asked, Atoms)
    write(out / "answer.extxyz", answered(asked))
    labels = ask(config, frame)
    assert isinstance(labels, Labels)
    atoms = frame.atoms.copy()
    atoms.calc = EMT()
    np.testing.assert_allclose(labels.forces, atoms.get_forces(), atol=1e-6)


def test_answers_under_any_name_find_their_frames(tmp_path: Path) -> None:
    config, frames = box(tmp_path), [frame_of(seed) for seed in range(4)]
    for frame in frames:
        with pytest.raises(WaitingError):
            ask(config, frame)
    inbox = tmp_path / "mailbox" / "in"
    for name, frame in zip("cabd", frames, strict=True):
        (inbox / name).mkdir()
        write(inbox / name / "result.extxyz", answered(frame.atoms))
    write(inbox / "stranger.extxyz", answered(frame_of(9).atoms))
    (inbox / "notes.extxyz").write_text("not a structure")
    for frame in frames:
        labels = ask(config, frame)
        assert isinstance(labels, Labels)
        atoms = frame.atoms.copy()
        atoms.calc = EMT()
        assert labels.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    refused = tmp_path / "mailbox" / "refused"
    assert sorted(p.name for p in refused.glob("*.extxyz")) == ["notes.extxyz", "stranger.extxyz"]
    assert "no frame that is waited for" in (refused / "stranger.extxyz.reason.txt").read_text()


def test_a_returned_answer_is_checked_like_any_other(tmp_path: Path) -> None:
    config, frame = box(tmp_path), frame_of(1)
    with pytest.raises(WaitingError):
        ask(config, frame)
    path = tmp_path / "mailbox" / "out" / frame.uid / "answer.extxyz"
    for atoms, reason in (
        (answered(frame.atoms, converged=False), Reason.UNCONVERGED),
        (answered(frame.atoms[::-1]), Reason.WRONG_ATOMS),
        (answered(frame_of(2).atoms), Reason.OTHER_FRAME),
    ):
        write(path, atoms)
        result = ask(config, frame)
        assert isinstance(result, LabelFailure)
        assert result.reason is reason


SILICON = {"type": "quantum-espresso", "pseudopotentials": {"Si": "Si.pbe-rrkj.UPF"}, "ecut": 150.0, "density_factor": 4.0}
HYDROGEN = {"type": "cp2k", "basis": "SZV-MOLOPT-SR-GTH", "cutoff": 2000.0, "rel_cutoff": 400.0}
RUNS = {"quantum-espresso": "pw.x -in pw.in > si.log", "cp2k": "cp2k -i cp2k.inp -o h.log"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("code", [SILICON, HYDROGEN], ids=lambda code: code["type"])
def test_a_folder_that_a_code_ran_in_may_come_back_whole(tmp_path: Path, code: dict[str, Any]) -> None:
    command = RUNS[code["type"]]
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"needs {command.split()[0]}")
    atoms = bulk("Si") if code is SILICON else Atoms("H2", [[0, 0, 0], [0.1, 0, 0.75]], cell=[3.61234, 3.5, 4.0], pbc=True)
    atoms.rattle(0.1 if code is SILICON else 0.0, seed=1)
    frame, config = Frame.of(atoms, Origin("given")), box(tmp_path, level="", code=code)
    with pytest.raises(WaitingError):
        ask(config, frame)
    out = tmp_path / "mailbox" / "out" / frame.uid
    back = Path(shutil.copytree(out, tmp_path / "mailbox" / "in" / "back"))
    environment = os.environ | {"CP2K_DATA_DIR": "/usr/share/cp2k"}
    subprocess.run(["sh", "-c", command], cwd=back, check=True, timeout=500, env=environment)
    labels = ask(config, frame)
    assert isinstance(labels, Labels), labels
    assert np.abs(labels.forces).max() > 0.1
    assert labels.stress is not None
    refused = {path.name for path in (tmp_path / "mailbox" / "refused").iterdir()}
    assert refused >= {path.name for path in out.iterdir()} - {"pw.out", "cp2k.out"}, "inputs are no answers"


def test_a_mailbox_must_name_its_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="level"):
        MailboxConfig(folder="x")


CONFIG = """
name = "letters"
structures = ["Cu.extxyz"]
[labeller]
type = "mailbox"
level = "EMT by hand"
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 60
[seeds]
rattled = 5
strained = 2
hot = 2
[converge]
stability_ps = 0
[checks]
repeat_share = 0.0
"""


@pytest.mark.parametrize("command", ["run", pytest.param("launch", marks=pytest.mark.slow)])
def test_a_campaign_waits_says_for_what_and_goes_on(tmp_path: Path, command: str) -> None:
    write(tmp_path / "Cu.extxyz", bulk("Cu", cubic=True))
    (tmp_path / "campaign.toml").write_text(CONFIG)
    waits = run(tmp_path, command)
    assert waits.returncode == 3, waits.stderr
    # A queue stops at the first label it hears of; the inputs of all are out by then.
    assert ("10 labels are waited for" if command == "run" else "is waited for") in waits.stderr
    assert str(tmp_path / "mailbox" / "out") in waits.stderr
    asked = sorted((tmp_path / "mailbox" / "out").iterdir())
    assert len(asked) == 10
    for n, folder in enumerate(asked[:-1]):
        atoms = read(folder / "frame.extxyz")
        assert isinstance(atoms, Atoms)
        write(folder / "answer.extxyz" if n % 2 else tmp_path / "mailbox" / "in" / f"{n}.extxyz", answered(atoms))
    waits = run(tmp_path, command)
    assert waits.returncode == 3
    assert f"the label of frame {asked[-1].name} is waited for" in waits.stderr
    atoms = read(asked[-1] / "frame.extxyz")
    assert isinstance(atoms, Atoms)
    write(asked[-1] / "answer.extxyz", answered(atoms))
    goes_on = run(tmp_path, command)
    assert goes_on.returncode == 0, goes_on.stderr
    assert (tmp_path / "iterations" / "000" / "converge" / "0000" / "manifest.json").is_file()


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = [str(AL), command, str(folder), "--workers", "2", "--max-iterations", "1"]
    return subprocess.run(words, capture_output=True, text=True, timeout=280)

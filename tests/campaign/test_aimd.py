"""Reference AIMD: exact resume after any interruption, what its file tells `validate`, and refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from typer.testing import CliRunner

from al_leignn.cli.app import app
from al_leignn.config import ExploreConfig
from al_leignn.core import Labels
from al_leignn.errors import AlLeignnError, DataError, InputError, RunError
from al_leignn.explore.ab_initio import BLOCK, AbInitioRun
from al_leignn.userdata import read_user_data
from al_leignn.validate.trajectory import read_trajectory

AL = Path(sys.executable).with_name("al-leignn")
START = bulk("Cu", "fcc", a=3.65, cubic=True)


class Remembering:
    """EMT with an error that depends on the labels since the last fresh start, as that of an SCF does."""

    def __init__(self, dies_at: int = -1) -> None:
        self.calls = 0
        self.since = 0
        self.dies_at = dies_at

    def __call__(self, atoms: Atoms, fresh: bool) -> Labels:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.calls += 1
        self.since = 0 if fresh else self.since + 1
        copy = atoms.copy()
        copy.calc = EMT()
        return Labels(copy.get_potential_energy(), copy.get_forces() + 1e-3 * np.sin(self.since), copy.get_stress())


def no_progress(done: int, total: int) -> None:
    pass


def a_run(out: Path, label: Callable[[Atoms, bool], Labels], steps: int = 60, settling: int = 10, **settings: Any) -> AbInitioRun:
    config = ExploreConfig(**({"temperatures": [300.0], "steps": steps, "timestep_fs": 4.0, "stride": 1} | settings))
    return AbInitioRun(START, config, settling, label, "0" * 64, 3, out, "a run")


@pytest.mark.parametrize(
    ("settling", "dies_at"), [(0, 0), (0, BLOCK), (0, BLOCK + 1), (40, 1), (40, BLOCK + 1), (40, 2 * BLOCK + 7)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, dies_at: int, settling: int) -> None:
    a_run(tmp_path / "whole.extxyz", Remembering(), settling=settling).go(no_progress)
    out = tmp_path / "parts.extxyz"
    with pytest.raises(KeyboardInterrupt):
        a_run(out, Remembering(dies_at), settling=settling).go(no_progress)
    again = Remembering()
    a_run(out, again, settling=settling).go(no_progress)
    assert out.read_bytes() == (tmp_path / "whole.extxyz").read_bytes()
    assert again.calls <= 61 + settling - BLOCK * ((dies_at - 1) // BLOCK)


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path: Path) -> None:
    out = tmp_path / "aimd.extxyz"
    first = a_run(out, Remembering(), steps=2 * BLOCK, settling=0).go(no_progress)
    short = out.read_bytes()
    label = Remembering()
    second = a_run(out, label, steps=3 * BLOCK, settling=0).go(no_progress)
    assert (first.step, second.step, label.calls) == (2 * BLOCK, 3 * BLOCK, BLOCK)
    assert out.read_bytes().startswith(short)
    assert len(read(out, ":")) == 3 * BLOCK + 1


def test_constant_energy_without_a_thermostat(tmp_path: Path) -> None:
    def exact(atoms: Atoms, fresh: bool) -> Labels:
        copy = atoms.copy()
        copy.calc = EMT()
        return Labels(copy.get_potential_energy(), copy.get_forces())

    a_run(tmp_path / "nve.extxyz", exact, steps=200, ensemble="nve", timestep_fs=2.0).go(no_progress)
    images: Any = read(tmp_path / "nve.extxyz", ":")
    total = np.array([atoms.info["REF_energy"] + atoms.get_kinetic_energy() for atoms in images])
    potential = np.array([atoms.info["REF_energy"] for atoms in images])
    assert np.ptp(total) < 0.03 * np.ptp(potential)
    assert np.abs([atoms.get_momenta().sum(axis=0) for atoms in images]).max() < 1e-6
    assert "target_temperature" not in images[0].info


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aimd")
    write(folder / "Cu.extxyz", START)
    words = ["init", str(folder / "Cu.extxyz"), "--dir", str(folder / "Cu"), "--labeller", "ase"]
    done = CliRunner().invoke(app, [*words, "--calculator", "ase.calculators.emt:EMT"])
    assert done.exit_code == 0, done.output
    text = (folder / "Cu" / "campaign.toml").read_text()
    (folder / "Cu" / "campaign.toml").write_text(text.replace("supercell = [2, 2, 2]", "supercell = [1, 1, 1]"))
    return folder / "Cu"


def aimd(campaign: Path, *words: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["aimd", str(campaign), "--json", *map(str, words)])
    if done.exception is not None:
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_its_file_is_a_reference_and_training_data(campaign: Path) -> None:
    words = ("--temperature", "400", "--ps", "0.2", "--timestep-fs", "4", "--settle-ps", "0.1", "--friction-per-ps", "0.5")
    found = aimd(campaign, *words)
    out = campaign / "aimd-400K.extxyz"
    assert found["trajectory"] == str(out)
    assert (found["frames"], found["length_ps"]) == (51, pytest.approx(0.2))
    assert json.loads(out.with_suffix(".json").read_text()) == found
    reference = read_trajectory(out)
    assert reference.interval_fs == pytest.approx(4.0)
    assert (reference.temperature, reference.temperature_error) == (400.0, 0.0)
    assert (reference.thermostat, reference.friction_per_ps, reference.level) == ("langevin", 0.5, found["level"])
    assert reference.velocities is not None
    assert reference.stresses is not None
    assert len(reference) == 51
    labelled = read_user_data(out, found["level"])
    for given, frame in zip(labelled[::10], read(out, "::10"), strict=True):
        assert isinstance(frame, Atoms)
        assert frame.info["level"] == f"id:{found['level']}"
        frame.calc = EMT()
        np.testing.assert_allclose(given.labels.forces, frame.get_forces(), atol=2e-5)
        assert given.labels.energy == pytest.approx(frame.get_potential_energy(), abs=1e-5)
    # Velocities are the time derivative of positions (central difference, so to second order in the time step).
    difference = (reference.positions[2:] - reference.positions[:-2]) / (2 * reference.interval_fs)
    assert np.abs(difference - reference.velocities[1:-1]).max() < 0.1 * np.abs(difference).max()
    assert not list(campaign.glob(".*scratch*"))


def test_killed_and_continued_by_the_same_command(campaign: Path, tmp_path: Path) -> None:
    words = ["aimd", str(campaign), "--temperature", "300", "--ps", "0.6", "--timestep-fs", "2", "--out"]
    whole, parts = tmp_path / "whole.extxyz", tmp_path / "parts.extxyz"
    assert CliRunner().invoke(app, [*words, str(whole)]).exit_code == 0
    process = subprocess.Popen([AL, *words, parts], stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 240
    while not (parts.exists() and parts.stat().st_size > whole.stat().st_size / 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < parts.stat().st_size < whole.stat().st_size
    assert CliRunner().invoke(app, [*words, str(parts)]).exit_code == 0
    assert parts.read_bytes() == whole.read_bytes()


def test_what_cannot_be_run_is_refused_before_anything_is_computed(campaign: Path, tmp_path: Path) -> None:
    usual = ("--temperature", "300", "--ps", "0.1", "--out", tmp_path / "a.extxyz")

    def refuses(what: str, fix: str, *words: str | Path) -> None:
        with pytest.raises(InputError) as refused:
            aimd(campaign, *usual, *words)
        assert what in refused.value.what
        assert fix in refused.value.fix

    write(tmp_path / "gold.extxyz", bulk("Au", cubic=True))
    write(tmp_path / "two.extxyz", [START, START])
    refuses("elements that the campaign does not know", "campaign's elements", "--structure", tmp_path / "gold.extxyz")
    refuses("2 structures instead of one", "file of its own", "--structure", tmp_path / "two.extxyz")
    refuses("ensemble 'npt'", "nvt, nve", "--ensemble", "npt")
    refuses("not a positive time", "picoseconds", "--ps", "-1")
    refuses("not compressed", "afterwards", "--out", tmp_path / "a.extxyz.xz")
    refuses("no such folder", "another", "--out", tmp_path / "b" / "a.extxyz")
    with pytest.raises(InputError, match="temperatures"):
        aimd(campaign, *usual, "--temperature", "-5")
    aimd(campaign, *usual)
    refuses("not the beginning of this trajectory", "--out", "--temperature", "310")
    (tmp_path / "a.extxyz").write_bytes(b"")
    refuses("shorter than when its state was saved", "restore it")


def test_a_step_without_a_label_is_told_with_what_to_do(tmp_path: Path) -> None:
    """At a temperature that is absurd, atoms soon overlap, which is no matter for DFT."""
    write(tmp_path / "Cu.extxyz", START)
    words = ["--labeller", "ase", "--calculator", "ase.calculators.emt:EMT"]
    CliRunner().invoke(app, ["init", str(tmp_path / "Cu.extxyz"), "--dir", str(tmp_path / "Cu"), *words])
    with pytest.raises(RunError, match="no label for the next step") as failed:
        aimd(tmp_path / "Cu", "--temperature", "200000", "--ps", "1", "--timestep-fs", "10")
    assert "--timestep-fs" in failed.value.fix


def test_labels_that_come_back_later_cannot_drive_md(tmp_path: Path) -> None:
    write(tmp_path / "Cu.extxyz", START)
    CliRunner().invoke(app, ["init", str(tmp_path / "Cu.extxyz"), "--dir", str(tmp_path / "Cu"), "--labeller", "mailbox"])
    config = tmp_path / "Cu" / "campaign.toml"
    config.write_text(config.read_text().replace('level = ""', 'level = "PBE"'))
    with pytest.raises(AlLeignnError, match="come back later"):
        aimd(tmp_path / "Cu", "--temperature", "300", "--ps", "0.1")


def test_state_of_another_run_is_not_picked_up(tmp_path: Path) -> None:
    out = tmp_path / "aimd.extxyz"
    a_run(out, Remembering()).go(no_progress)
    other = AbInitioRun(START, a_run(out, Remembering()).config, 10, Remembering(), "0" * 64, 3, out, "another run")
    before = out.read_bytes()
    with pytest.raises(DataError, match="not the beginning"):
        other.go(no_progress)
    assert out.read_bytes() == before

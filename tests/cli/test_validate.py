"""`al-leignn validate` as users meet it: MD run by a committee or made earlier, verdicts, figures, refusals, exit codes."""

import json
import os
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
from typer.testing import CliRunner

from al_leignn.cli.app import app
from al_leignn.errors import InputError
from al_leignn.units import KB

AL = Path(sys.executable).with_name("al-leignn")


def al(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([AL, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=240, env=environment)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "to do:" in result.stderr
    for word in words:
        assert word in result.stderr


def shaken(frames: int, *, seed: int, spread: float = 0.12, metal: str = "Al") -> list[Atoms]:
    """Cu3Al whose atoms shake about their sites, with EMT labels: as good as AIMD, and enough of it is made at once."""
    rng = np.random.default_rng(seed)
    images = []
    for n in range(frames):
        atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
        atoms.symbols[0] = metal
        atoms.positions += spread * rng.standard_normal((4, 3))
        atoms.info = {"time_fs": 5.0 * n, "temperature": 300.0}
        images.append(atoms)
    return images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("validate")
    write(made / "aimd.extxyz", shaken(2000, seed=0))
    write(made / "same.extxyz", shaken(2000, seed=1))
    write(made / "wider.extxyz", shaken(1500, seed=2, spread=0.2))
    return made


LOOSE = [word for kind in ("rdf", "adf", "msd", "vdos") for word in ("--tolerance", f"{kind}=0.3")]


def test_equivalent_md_made_earlier(folder: Path) -> None:
    """Exit code 0, one verdict a line; no committee is needed."""
    done = al("validate", "--reference", "aimd.extxyz", "--trajectory", "same.extxyz", *LOOSE, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("10 ps of AIMD and 10 ps of MD, AlCu3")
    assert sum(line.rstrip().endswith("equivalent") for line in lines) >= 8
    assert "not compared: diffusion Al (no atom leaves its site)" in done.stdout
    assert "not compared: energy (no energies in the reference and the MD)" in done.stdout
    assert "equivalent (chance of one or more wrong claims: 5.0 % at most)" in done.stdout


def test_different_md_with_figures(folder: Path) -> None:
    done = al("validate", "--reference", "aimd.extxyz", "--trajectory", "wider.extxyz", "--json", "--plot", "figures", cwd=folder)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["outcome"] == "different"
    assert "different" in {o["verdict"] for o in found["observables"] if o["kind"] == "rdf"}
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert drawn == {"verdict.png", "rdf.png", "adf.png", "msd.png", "vdos.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "figures").iterdir())


def test_a_committee_runs_its_own_md(emt_campaign: Path, tmp_path: Path) -> None:
    """From the first frame of the reference, at its temperature and its times; forces and pressure are compared too."""
    images = shaken(60, seed=3, spread=0.05)
    for atoms in images:
        atoms.calc = EMT()
        atoms.info |= {"REF_energy": atoms.get_potential_energy(), "REF_stress": atoms.get_stress()}
        atoms.set_array("REF_forces", atoms.get_forces())
        atoms.calc = None
    write(tmp_path / "aimd.extxyz", images)
    words = ("validate", emt_campaign, "--reference", "aimd.extxyz", "--ps", "0.5")
    done = al(*words, "--json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["outcome"] in ("undecided", "different")
    assert found["md"]["interval_fs"] == pytest.approx(5.0)
    assert found["md"]["length_ps"] == pytest.approx(0.45, abs=0.02)
    assert {"energy", "pressure", "forces"} <= {o["kind"] for o in found["observables"]}
    assert any("ps more AIMD" in o["verdict"] for o in found["observables"])
    refused(al(*words, cwd=tmp_path), "validate.extxyz", "exists")
    again = al("validate", emt_campaign, "--reference", "aimd.extxyz", "--trajectory", "validate.extxyz", "--json", cwd=tmp_path)
    assert again.returncode == 1, again.stderr
    assert {o["kind"] for o in json.loads(again.stdout)["observables"]} >= {"energy", "pressure", "forces"}


def test_any_calculator_runs_the_md(tmp_path: Path) -> None:
    """EMT against EMT, by way of its import path; in the end the energies of the MD are those of the calculator."""
    images = shaken(60, seed=3, spread=0.05)
    for atoms in images:
        atoms.calc = EMT()
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.calc = None
    write(tmp_path / "aimd.extxyz", images)
    words = ("validate", "--calculator", "ase.calculators.emt:EMT", "--reference", "aimd.extxyz", "--ps", "0.4", "--json")
    done = al(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["md"]["interval_fs"] == pytest.approx(5.0)
    assert "energy" in {o["kind"] for o in found["observables"]}
    last: Any = read(tmp_path / "validate.extxyz", "-1")
    last.calc = EMT()
    assert last.get_potential_energy() == pytest.approx(last.info["REF_energy"], abs=1e-4)


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    hot, timeless, jumping = (shaken(frames, seed=5) for frames in (200, 30, 30))
    for atoms in hot:
        atoms.info["temperature"] = 900.0
    for atoms in timeless:
        atoms.info = {}
    jumping[7].positions[2] += [1.8, 0, 0]
    squeezed = shaken(30, seed=6)
    for atoms in squeezed:
        atoms.set_cell(0.97 * atoms.cell, scale_atoms=True)
    images = {
        "other": shaken(30, seed=4, metal="Ni"),
        "hot": hot,
        "timeless": timeless,
        "jumping": jumping,
        "short": shaken(5, seed=7),
        "squeezed": squeezed,
    }
    made = {name: tmp_path / f"{name}.extxyz" for name in images}
    for name, frames in images.items():
        write(made[name], frames)

    def refuses(what: str, fix: str, *words: str | Path) -> None:
        error = CliRunner().invoke(app, ["validate", *map(str, words)]).exception
        assert isinstance(error, InputError), error
        assert what in error.what
        assert fix in error.fix

    aimd, same = folder / "aimd.extxyz", folder / "same.extxyz"
    md = ("--trajectory", same)
    refuses("another composition: the reference is Cu3Ni, the MD AlCu3", "from a frame", "--reference", made["other"], *md)
    refuses("another cell (a b c in Å, angles): 3.589", "from a frame", "--reference", made["squeezed"], *md)
    refuses("how much time", "--interval-fs", "--reference", made["timeless"], *md)
    refuses("atom 2 moves", "more often", "--reference", made["jumping"], *md)
    refuses("5 frames are too few", "at least 20", "--reference", made["short"], *md)
    refuses("nothing to compare", "MODEL", "--reference", aimd)
    refuses("no calculator no.such:Thing", "pip install", "--reference", aimd, "--calculator", "no.such:Thing")
    refuses("a part of Python", "", "--reference", aimd, "--calculator", "os:system")
    refuses("'rdx=1' is no tolerance", "vdos", "--reference", aimd, *md, "--tolerance", "rdx=1")
    refuses("figures need a folder", "another name", "--reference", aimd, *md, "--plot", aimd)
    hot_one = al("validate", "--reference", made["hot"], "--trajectory", same, cwd=tmp_path)
    refused(hot_one, "another temperature", "900 K", "300 K", "--temperature")


def test_a_doubtful_reference_is_told(folder: Path, tmp_path: Path) -> None:
    """Frames of 600 K that say 300 K, with energies that fall at first: verdicts come with both warnings, and what to do."""
    images = shaken(600, seed=8)
    sites = np.array(bulk("Cu", "fcc", a=3.7, cubic=True).positions)
    stiffness = KB * 600.0 / 0.12**2
    for n, atoms in enumerate(images):
        moved = atoms.positions - sites
        atoms.info["REF_energy"] = 0.5 * stiffness * float(np.square(moved).sum()) + 2.0 * np.exp(-n / 40)
        atoms.set_array("REF_forces", -stiffness * moved)
    write(tmp_path / "aimd.extxyz", images)
    words = ("validate", "--reference", str(tmp_path / "aimd.extxyz"), "--trajectory", str(folder / "same.extxyz"))
    shown = CliRunner().invoke(app, list(words)).stdout
    assert "positions and forces are those of" in shown
    assert "not of 300 K" in shown
    assert "was not in equilibrium at the start" in shown
    assert "--skip-ps" in shown
    doubt = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["reference"]
    told, error = doubt["told_temperature"]
    assert abs(told - 600) < 4 * error
    assert 0.2 < doubt["relaxation_ps"] < 1.5

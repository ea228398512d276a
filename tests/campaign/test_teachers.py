"""Whole campaigns, from `init` to labels in the data set, taught by ASE calculators that people use: what is installed is tried.

`pip install tblite`, `pip install chgnet` and `pip install mace-torch`; pretrained weights of MACE are downloaded, so the network
here is a small one with random weights.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.campaign.campaign import Campaign
from al_leignn.config import AseConfig
from al_leignn.label.ase_calc import AseLabeller

# Their packages warn of one thing or another.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

SILICON = bulk("Si", cubic=True)

SMALL: dict[str, dict[str, Any]] = {
    "model": {"cutoff": 4.0, "features": 4, "layers": 1, "radial": 4},
    "train": {"members": 2, "steps": 60, "warm_steps": 30},
    "seeds": {"rattled": 4, "strained": 2, "hot": 2},
    "explore": {"temperatures": [300.0], "walkers": 1, "steps": 60, "stride": 5},
    "select": {"budget": 3, "fresh": 2},
    "converge": {"stability_ps": 0},
    "budget": {"iterations": 1},
}


def gfn1(folder: Path) -> AseConfig:
    return gfn(1)


def gfn2(folder: Path) -> AseConfig:
    return gfn(2)


def gfn(version: int) -> AseConfig:
    pytest.importorskip("tblite.ase", reason="pip install tblite")
    return AseConfig(calculator="tblite.ase:TBLite", arguments={"method": f"GFN{version}-xTB"})


def chgnet(folder: Path) -> AseConfig:
    pytest.importorskip("chgnet", reason="pip install chgnet")
    return AseConfig(calculator="chgnet.model.dynamics:CHGNetCalculator", arguments={"use_device": "cpu"})


def mace(folder: Path) -> AseConfig:
    pytest.importorskip("mace", reason="pip install mace-torch")
    model = folder / "mace.model"
    code = f"import peers, torch; torch.save(peers.mace('8x0e').models[0], {str(model)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2] / "benchmarks")
    arguments = {"model_paths": str(model), "device": "cpu", "default_dtype": "float64"}
    return AseConfig(calculator="mace.calculators:MACECalculator", arguments=arguments)


def al(*words: str | Path) -> str:
    done = subprocess.run([Path(sys.executable).with_name("al-leignn"), *map(str, words)], capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr  # 3: the budget of one iteration is spent
    return done.stdout


@pytest.mark.parametrize(
    ("teacher", "atoms"),
    [(gfn1, SILICON), (gfn2, molecule("CH3OH")), (chgnet, SILICON), (mace, SILICON)],
    ids=["GFN1-xTB", "GFN2-xTB", "CHGNet", "MACE"],
)
def test_a_calculator_teaches_a_campaign(teacher: Callable[[Path], AseConfig], atoms: Atoms, tmp_path: Path) -> None:
    config = teacher(tmp_path)
    atoms.write(tmp_path / "start.extxyz")
    folder = tmp_path / "campaign"
    al("init", tmp_path / "start.extxyz", "--dir", folder, "--labeller", "ase", "--calculator", config.calculator)
    document = tomlkit.parse((folder / "campaign.toml").read_text())
    for section, values in (SMALL | {"labeller": {"arguments": config.arguments}}).items():
        document[section].update(values)
    (folder / "campaign.toml").write_text(tomlkit.dumps(document))
    assert json.loads(al("check", folder, "--json"))["missing"] == []
    printed = al("run", folder, "--workers", "1")
    assert "cycle" not in printed  # calculators talk, but not here
    found = Campaign.open(folder)
    labels = found.status()["labels"]
    assert labels["asked"] == labels["accepted"] >= 11
    frames = found.frames()
    assert len(frames) == labels["accepted"]
    for labelled in frames[::4]:
        plain = labelled.copy()
        plain.calc = AseLabeller(config).calculator()
        np.testing.assert_allclose(labelled.get_forces(), plain.get_forces(), atol=1e-4)
    energies = json.loads(al("labels", "atoms", folder, "--out", tmp_path / "atoms.extxyz", "--json"))
    assert set(energies) == set(atoms.get_chemical_symbols())
    if "O" in energies:
        oxygen = Atoms("O", magmoms=[2.0], calculator=AseLabeller(config).calculator())
        assert energies["O"] == pytest.approx(oxygen.get_potential_energy(), abs=1e-6), "two unpaired electrons"

"""The parameter sets that ship with the project are ones the config accepts, document themselves, and make campaigns."""

import tomllib
from pathlib import Path

import pytest
from ase.build import bulk, molecule

from al_leignn.campaign.create import read_set
from al_leignn.campaign.derive import derive
from al_leignn.config import LABELLERS, KpointsSection
from al_leignn.errors import CampaignError, ConfigError

FOLDER = Path(__file__).parents[2] / "dft_inputs"
FILES = sorted(FOLDER.glob("*.toml"))


def test_every_code_has_its_sets() -> None:
    assert {tomllib.loads(path.read_text())["type"] for path in FILES} == {"gpaw", "quantum-espresso", "cp2k", "vasp"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_keys_and_values_are_valid(path: Path) -> None:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    config = LABELLERS[values["type"]].model_validate(values)
    assert path.name.startswith(values["type"])
    assert config.model_dump()["xc"].lower() in path.stem
    assert ("d3" in path.stem) == (config.model_dump().get("dispersion") == "d3")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_documented(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert path.name in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_makes_a_campaign_with_k_points_for_the_structure(path: Path) -> None:
    for atoms, grid in ((bulk("Si", cubic=True), (2, 2, 2)), (molecule("H2O"), (1, 1, 1))):
        made = derive("x", [atoms], ["x.extxyz"], inputs=read_set(path.stem)).config.labeller
        assert isinstance(made, KpointsSection)
        assert made.kpts == grid
        assert made.model_dump()["xc"] == read_set(str(path))["xc"]


def test_an_unknown_or_broken_set_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="cp2k_pbe"):
        read_set("no-such-set")
    broken = tmp_path / "mine.toml"
    broken.write_text("type = ")
    with pytest.raises(CampaignError, match="cannot be read"):
        read_set(str(broken))
    with pytest.raises(ConfigError, match="ecutt"):
        derive("x", [bulk("Si")], ["x"], inputs={"type": "gpaw", "ecutt": 3})
    with pytest.raises(CampaignError, match="type"):
        derive("x", [bulk("Si")], ["x"], inputs={"ecut": 3})

"""A crystal by the campaign's labeller: as by the calculator itself, and paid for once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import write
from typer.testing import CliRunner

from al_leignn.campaign.crystal import LabellerCalculator, crystal_of, phonon_difference, table_of
from al_leignn.campaign.layout import Layout
from al_leignn.cli.app import app
from al_leignn.errors import CheckpointError, StructureError
from al_leignn.validate.crystal import crystal_properties


def test_labels_give_what_their_calculator_gives_and_are_paid_for_once(emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copy(emt_campaign / "campaign.toml", tmp_path)
    write(tmp_path / "copper.extxyz", bulk("Cu", "fcc", a=3.65, cubic=True))
    copper = crystal_of(tmp_path / "copper.extxyz")
    first, again = (LabellerCalculator(Layout(tmp_path)) for _ in range(2))
    found, repeated = crystal_properties(copper, first), crystal_properties(copper, again)
    assert first.computed > 20
    assert again.computed == 0
    np.testing.assert_array_equal(repeated.elastic, found.elastic)
    direct = crystal_properties(copper, EMT())
    ours, theirs = table_of(found, direct), table_of(direct, direct)
    assert {"volume, Å³/atom", "bulk modulus, GPa", "C11, GPa", "C12, GPa", "C44, GPa"} <= set(ours)
    assert "C14, GPa" not in ours
    assert ours == pytest.approx(theirs, rel=0.01, abs=0.01)
    rms = phonon_difference(found, direct)
    assert rms is None or rms < 0.02


def test_what_is_no_crystal_is_refused(emt_campaign: Path, tmp_path: Path) -> None:
    write(tmp_path / "water.extxyz", molecule("H2O"))
    write(tmp_path / "two.extxyz", [bulk("Cu"), bulk("Cu")])
    for name, what in (("water", "not periodic"), ("two", "2 structures")):
        with pytest.raises(StructureError, match=what):
            crystal_of(tmp_path / f"{name}.extxyz")
    error = CliRunner().invoke(app, ["crystal", str(tmp_path / "no.safetensors"), str(tmp_path / "two.extxyz")]).exception
    assert isinstance(error, CheckpointError)

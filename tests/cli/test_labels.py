"""The label store from the command line: listed, verified, released, exported and taken in; nothing paid twice."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from al_leignn.campaign.layout import Layout
from al_leignn.core import Doubt, Reason
from al_leignn.labelstore import LabelStore
from al_leignn.userdata import read_isolated_atoms

AL = Path(sys.executable).with_name("al-leignn")


def al(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([AL, "labels", *map(str, words)], capture_output=True, text=True, timeout=120, env=dict(os.environ))


@pytest.fixture
def campaign(emt_campaign: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(emt_campaign, tmp_path / "campaign"))


def store(folder: Path) -> LabelStore:
    layout = Layout.open(folder)
    return LabelStore(layout.label_store(layout.config()))


def doubt_one(folder: Path) -> str:
    labelled = next(iter(store(folder))).labelled
    store(folder).doubt(labelled.frame, labelled.level, Doubt(Reason.ENERGY, "odd"))
    return labelled.frame.uid


def test_list_counts_what_is_there_and_what_waits(campaign: Path) -> None:
    uid = doubt_one(campaign)
    everything, waiting = (json.loads(al("list", campaign, "--json", *words).stdout) for words in ((), ("--quarantined",)))
    assert everything["labels"] == len(everything["rows"]) == len(store(campaign))
    assert (everything["quarantined"], waiting["labels"]) == (1, 1)
    assert waiting["rows"][0]["uid"] == uid
    assert waiting["rows"][0]["reason"] == "energy"
    table = al("list", campaign).stdout
    assert f"{uid} quarantined: energy, odd" in table
    assert "ase.calculators.emt:EMT" in table


def test_release_is_by_name_and_told(campaign: Path) -> None:
    uid = doubt_one(campaign)
    refused = al("release", "zz", campaign)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no quarantined label" in refused.stderr
    assert f"released {uid} (energy: odd)" in al("release", uid[:8], campaign).stdout
    assert al("release", uid[:8], campaign).returncode == 2
    assert json.loads(al("list", campaign, "--json").stdout)["quarantined"] == 0


def test_verify_finds_damage(campaign: Path) -> None:
    assert al("verify", campaign).returncode == 0
    path = next(store(campaign).root.glob("*/??/*.json"))
    path.write_bytes(path.read_bytes()[:-9])
    found = al("verify", campaign)
    assert found.returncode == 1
    assert str(path) in found.stdout


def test_export_and_import_carry_every_label_once(campaign: Path, emt_campaign: Path, tmp_path: Path) -> None:
    uid = doubt_one(campaign)
    out = tmp_path / "out.extxyz"
    assert al("export", campaign, "--out", out).returncode == 0
    frames = read(out, ":")
    assert len(frames) == len(store(campaign)) - 1
    assert uid not in {frame.info["uid"].removeprefix("id:") for frame in frames}
    assert np.isfinite([frame.info["REF_energy"] for frame in frames]).all()
    n = len(store(campaign))
    shutil.rmtree(store(campaign).root)
    refused = al("import", out, "--dir", campaign)
    assert refused.returncode == 2
    assert "--same-level" in refused.stderr
    assert f"{n - 1} new label(s)" in al("import", out, "--same-level", "--dir", campaign).stdout
    assert "1 new label(s)" in al("import", emt_campaign, "--dir", campaign).stdout
    assert "0 new label(s)" in al("import", emt_campaign, "--dir", campaign).stdout
    assert len(store(campaign)) == n


def test_export_to_nowhere_and_of_no_level_are_refused(campaign: Path, tmp_path: Path) -> None:
    for words in (("--out", tmp_path / "no" / "such" / "file"), ("--out", tmp_path / "x", "--level", "zz")):
        refused = al("export", campaign, *words)
        assert refused.returncode == 2, refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_file_without_labels_is_refused(campaign: Path, tmp_path: Path) -> None:
    frame = next(iter(store(campaign))).labelled.frame
    write(tmp_path / "bare.extxyz", frame.atoms)
    refused = al("import", tmp_path / "bare.extxyz", "--same-level", "--dir", campaign)
    assert refused.returncode == 2, refused.stderr


def test_retry_after_collection_is_refused(campaign: Path) -> None:
    refused = al("retry", campaign)
    assert refused.returncode == 2
    assert "collected" in refused.stderr


def test_isolated_atoms_are_labelled_once(emt_campaign: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(emt_campaign, tmp_path / "campaign"))
    before = len(store(folder))
    for _ in range(2):
        done = al("atoms", folder, "--out", tmp_path / "atoms.extxyz", "--json")
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) == {"Al", "Cu"}
    assert len(store(folder)) == before + 2
    energies = read_isolated_atoms(tmp_path / "atoms.extxyz")
    assert energies == pytest.approx({13: json.loads(done.stdout)["Al"], 29: json.loads(done.stdout)["Cu"]})

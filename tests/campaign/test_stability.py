"""Without AIMD: MD of each committee is compared with MD of the one before."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.learning import COMPARED, OBSERVABLES
from al_leignn.campaign.state import scan
from al_leignn.campaign.validation import compare_with_before
from al_leignn.config import ConvergeConfig
from al_leignn.core import Stage, StageRequest
from al_leignn.validate.trajectory import read_trajectory


def made(layout: Layout, iteration: int) -> Path:
    return layout.item(StageRequest(Stage.VALIDATE, iteration, 0))


def shaken(path: Path, spread: float, seed: int) -> Path:
    """Frames of MD as it is written, 400 that know nothing of each other, of atoms so far from their places (Å)."""
    rng = np.random.default_rng(seed)
    crystal = bulk("Cu", cubic=True)
    frames = []
    for n in range(400):
        atoms = crystal.copy()
        away = rng.normal(scale=spread, size=(len(atoms), 3))
        atoms.positions += away
        atoms.info = {"energy": float(np.square(away).sum()), "time_fs": 10.0 * n, "target_temperature": 300.0}
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


def test_every_iteration_leaves_md_and_is_compared_with_the_one_before(emt_campaign: Path) -> None:
    layout = Layout.open(emt_campaign)
    first, *later = (History(layout).record(i).stability for i in range(3))
    assert first is not None
    assert first["verdict"] == "unknown"
    for i, found in enumerate(later, start=1):
        assert found is not None
        (whole,) = json.loads((made(layout, i) / OBSERVABLES).read_text())
        assert whole["outcome"] == found["verdict"]
        assert {"rdf", "energy"} <= {o["kind"] for o in whole["observables"]}
        frames: list[Atoms] = read(made(layout, i) / COMPARED, ":")  # type: ignore[assignment]
        assert {atoms.info["target_temperature"] for atoms in frames} == {600.0}
        assert frames[-1].info["time_fs"] == pytest.approx(300.0, abs=10.0)
        assert not list(made(layout, i).glob("*.restart"))


def test_the_decision_rests_on_it(emt_campaign: Path) -> None:
    layout = Layout.open(emt_campaign)
    found, decision = History(layout).record(2).stability, scan(layout).decision
    assert found is not None
    assert decision is not None
    assert decision.conditions["stable observables"] is (found["verdict"] in ("equivalent", "undecided"))


@pytest.mark.parametrize(("spread", "verdict"), [(0.1, "equivalent"), (0.14, "different")])
def test_atoms_that_move_more_than_before_are_seen(tmp_path: Path, spread: float, verdict: str) -> None:
    before, now = shaken(tmp_path / "before.extxyz", 0.1, 0), shaken(tmp_path / "now.extxyz", spread, 1)
    config = ConvergeConfig(observables=["rdf", "energy"])
    found = compare_with_before(read_trajectory(now), before, config, seed=np.random.SeedSequence(0))
    assert {c.outcome.value for c in found.comparisons} == {verdict}
    assert verdict == "equivalent" or "beside the committee before, different" in found.words

"""What labels cost: predictions hold within a factor of 2, budgets in core-hours are never exceeded, sums are right."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.ledger import FACTOR, NEEDED, Paid, affordable, ledger, paid_labels, predict
from al_leignn.core import LabelVerdict
from al_leignn.labelstore import LabelStore


def scf_costs(rng: np.random.Generator, atoms: np.ndarray) -> list[Paid]:
    """Costs as SCF has them: 10 to 30 steps, one in fifty hard, sizes to a power that is not quite ours."""
    steps = rng.integers(10, 30, len(atoms)) * np.where(rng.random(len(atoms)) < 0.02, 4, 1)
    return [Paid(0, int(n), float(0.3 * s * (n / 8) ** 2.3), float(i)) for i, (n, s) in enumerate(zip(atoms, steps, strict=True))]


@pytest.mark.parametrize("sizes", [(8,), (8, 16), (8, 12, 32)])
def test_predictions_hold_within_a_factor_of_two_for_nine_in_ten(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    paid = scf_costs(rng, rng.choice(sizes, 300))
    good = []
    for n in range(NEEDED, len(paid)):
        foretold = predict(paid[:n], paid[n].atoms)
        assert foretold is not None
        good.append(1 / FACTOR <= paid[n].core_s / foretold <= FACTOR)
    assert np.mean(good) >= 0.9


def test_nothing_is_foretold_from_nothing() -> None:
    assert predict([], 8) is None


def test_a_new_size_is_foretold_from_the_nearest() -> None:
    paid = [Paid(0, 8, 10.0, 0.0), Paid(0, 64, 700.0, 1.0)]
    assert predict(paid, 16) == pytest.approx(40.0)
    assert predict(paid, 8) == pytest.approx(10.0)


def test_the_ledger_of_a_campaign_adds_up(emt_campaign: Path) -> None:
    history = History(Layout.open(emt_campaign))
    found = ledger(history)
    assert found["spent_core_s"] == pytest.approx(sum(found["iterations"]))
    assert found["spent_core_s"] == pytest.approx(Campaign.open(emt_campaign).status()["labels"]["core_s"], rel=1e-6)
    assert found["labels"] == len(paid_labels(history))
    if found["aimd_core_s"] is not None:
        steps = sum(history.record(i).steps for i in range(history.iterations))
        assert found["aimd_core_s"] == pytest.approx(found["next_label_core_s"] * steps)


def test_affordable_is_what_is_left(emt_campaign: Path) -> None:
    history = History(Layout.open(emt_campaign))
    assert affordable(history, 0.0, 4, 1.0) == 0
    assert affordable(history, 1e9, 4, 1.0) > 1000


CONFIG = """
name = "thrift"
structures = ["Cu.extxyz"]
[labeller]
type = "ase"
calculator = "slow_emt:Slow"
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 60
warm_steps = 20
[seeds]
rattled = 5
strained = 2
hot = 2
[converge]
stability_ps = 0
[explore]
temperatures = [300.0]
walkers = 1
steps = 40
[select]
budget = 6
fresh = 4
[budget]
core_hours = {core_hours}
"""
SLOW = """
import time
from ase.calculators.emt import EMT
class Slow(EMT):
    def calculate(self, *words, **keys):
        end = time.process_time() + {usual}
        if words[0].positions[0, 0] % 1e-4 < {hard} * 1e-4:
            end += 30.0
        while time.process_time() < end:
            pass
        super().calculate(*words, **keys)
"""


def spend(folder: Path, budget_s: float, usual: float, hard: float) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run a campaign whose labels cost so many seconds; how it ended, and its labels."""
    (folder / "slow_emt.py").write_text(SLOW.format(usual=usual, hard=hard))
    write(folder / "Cu.extxyz", bulk("Cu", cubic=True))
    (folder / "campaign.toml").write_text(CONFIG.format(core_hours=budget_s / 3600))
    words = [str(Path(sys.executable).with_name("al-leignn")), "run", str(folder), "--workers", "2"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(folder)}, timeout=580)
    labels = Campaign.open(folder).status()["labels"]
    assert 0.0 < labels["core_s"] <= budget_s
    assert labels["asked"] == sum(labels[verdict.value] for verdict in LabelVerdict)
    return done, labels


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("budget_s", "usual", "hard"),
    [(3.0, 0.15, 0.0), pytest.param(8.0, 0.15, 0.25, marks=pytest.mark.slow)],
    ids=["as ever", "one in four 200 times as dear"],
)
def test_core_hours_are_never_exceeded(tmp_path: Path, budget_s: float, usual: float, hard: float) -> None:
    done, labels = spend(tmp_path, budget_s, usual, hard)
    assert done.returncode == 3, done.stderr
    decision = Campaign.open(tmp_path).status()["decision"]
    assert decision["kind"] == "budget spent"
    assert "core-hours" in decision["reason"]
    assert labels["core_s"] > 0.5 * budget_s
    assert labels["accepted"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_budget_too_small_for_the_first_labels_is_said_to_be(tmp_path: Path) -> None:
    """Nine labels of about a second and eight seconds: each gets its share, too little for most."""
    done, labels = spend(tmp_path, 8.0, 1.0, 0.0)
    assert labels["accepted"] < 9
    if done.returncode == 3:
        assert Campaign.open(tmp_path).status()["decision"]["kind"] == "budget spent"
    else:
        assert done.returncode == 1
        assert "every label for training failed (budget: " in done.stderr
        assert "raise budget.core_hours" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_campaigns_at_the_same_time_pay_each_label_once(tmp_path: Path) -> None:
    """Equal campaigns want equal labels of a shared store, at nearly the same instant."""
    text = CONFIG.replace("core_hours = {core_hours}", "iterations = 1").replace(
        "[labeller]", 'label_store = "../labels"\n[labeller]'
    )
    (tmp_path / "slow_emt.py").write_text(SLOW.format(usual=0.3, hard=0.0))
    program, environment = Path(sys.executable).with_name("al-leignn"), os.environ | {"PYTHONPATH": str(tmp_path)}
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        write(folder / "Cu.extxyz", bulk("Cu", cubic=True))
        (folder / "campaign.toml").write_text(text)
    running = [
        subprocess.Popen([program, "run", folder, "--workers", "2"], stdout=subprocess.DEVNULL, env=environment)
        for folder in folders
    ]
    assert [process.wait() for process in running] == [3, 3]  # the budget of one iteration is spent
    one, other = (Campaign.open(folder).status()["labels"] for folder in folders)
    assert one["accepted"] == one["asked"] == other["accepted"]
    assert one["computed"] + other["computed"] == len(LabelStore(tmp_path / "labels"))

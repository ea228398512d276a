"""Every fault that a DFT code or cluster may add: each is named, the sums are right, and the data set stays clean."""

import random
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History
from al_leignn.campaign.labels import retry, rows, store_of
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.stages import run_stage
from al_leignn.core import Frame, LabelVerdict, Origin, Reason, Stage, StageRequest
from al_leignn.errors import RunError
from al_leignn.flow.local import run
from al_leignn.flow.watch import Silence
from al_leignn.store import write_frames

CODE = Path(__file__).with_name("faulty_code.py")

NAMED = {
    "unconverged": Reason.UNCONVERGED,
    "crash": Reason.CRASHED,
    "hang": Reason.TIMEOUT,
    "empty output": Reason.NO_OUTPUT,
    "truncated output": Reason.BAD_OUTPUT,
    "not a number": Reason.NOT_FINITE,
    "wrong atom order": Reason.WRONG_ATOMS,
    "wrong units": Reason.UNITS,
    "wrong cell": Reason.WRONG_CELL,
    "another functional": Reason.ENERGY,
    "duplicated result": Reason.DUPLICATE,
    "partial write": Reason.INCOMPLETE,
    "stale file": Reason.OTHER_FRAME,
}

CONFIG = """
name = "faults"
seed = 3
structures = ["Cu3Al.extxyz"]
[labeller]
type = "external"
command = [{python!r}, {code!r}, "{{input}}", "{{output}}", {folder!r}]
time_limit_s = 6.0
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 150
warm_steps = 50
learning_rate = 0.01
[seeds]
rattled = 20
strained = 6
hot = 12
[explore]
temperatures = [300.0, 600.0]
walkers = 1
batch = 1
steps = 100
stride = 2
[select]
budget = 6
fresh = 4
trust_hi = 3.0
[converge]
stability_ps = 0
{more}
"""


def campaign(
    folder: Path, faults: dict[str, str], more: str = "[budget]\niterations = 1", max_iterations: int | None = None
) -> Campaign:
    """Run a campaign to its end with the faults (token: name) that the code is to have."""
    for name in ("faults", "taken"):
        (folder / name).mkdir(parents=True)
    for token, fault in faults.items():
        (folder / "faults" / f"{token}-{fault}").touch()
    crystal = bulk("Cu", "fcc", a=3.75, cubic=True)
    crystal.symbols[0] = "Al"
    write_frames(folder / "Cu3Al.extxyz", [Frame.of(crystal, Origin("given"))])
    text = CONFIG.format(python=sys.executable, code=str(CODE), folder=str(folder), more=more).replace("'", '"')
    (folder / "campaign.toml").write_text(text)
    run(Layout.open(folder), workers=2, max_iterations=max_iterations, watcher=Silence())
    return Campaign.open(folder)


def assert_clean(found: Campaign) -> None:
    """Every label in the data set is what the code says of the frame when it has no fault."""
    morse = runpy.run_path(str(CODE))["morse"]
    frames = found.frames()
    for atoms in frames:
        energy, forces = morse(atoms.get_chemical_symbols(), atoms.positions, np.asarray(atoms.cell))
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-5)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-5)
    assert frames


@pytest.mark.timeout(600)
def test_every_fault_is_named_and_none_enters(tmp_path: Path) -> None:
    # Good labels come first, so that there is something to duplicate; wrong units are told by the first committee.
    order = ["", "", *(fault for fault in NAMED if fault != "wrong units")]
    tokens = {f"a{n:02d}": fault for n, fault in enumerate(order)} | {"z": "wrong units"}
    found = campaign(tmp_path / "campaign", tokens)
    assert not list((tmp_path / "campaign" / "faults").iterdir()), "not every fault came to pass"
    named = sum((Counter(record.refused) for record in History(found.layout).records()), Counter())
    assert named == {reason.value: 1 for reason in NAMED.values()}
    status = found.status()
    labels = status["labels"]
    assert labels["asked"] == labels["accepted"] + labels["quarantined"] + labels["rejected"]
    assert labels["quarantined"] == sum(r.verdict is LabelVerdict.QUARANTINED for r in NAMED.values())
    assert labels["rejected"] == sum(r.verdict is LabelVerdict.REJECTED for r in NAMED.values())
    assert status["finished"]
    assert len(found.frames()) == labels["accepted"]
    assert_clean(found)


@pytest.mark.timeout(600)
def test_what_a_person_releases_joins_with_the_next_collection(tmp_path: Path) -> None:
    tokens = {"a00": "", "a01": "another functional"}
    first = campaign(tmp_path / "campaign", tokens, "[budget]\niterations = 2", max_iterations=1)
    store = store_of(first.layout)
    (row,) = rows(store, quarantined=True)
    assert row.uid not in {atoms.info["uid"] for atoms in first.frames()}
    store.release(row.uid)
    run(first.layout, workers=2, max_iterations=1, watcher=Silence())
    history = History(first.layout)
    assert history.result(Stage.COLLECT, 1)["released"] == [row.uid]
    assert row.uid in {atoms.info["uid"] for atoms in first.frames("train")}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_code_that_fails_three_times_in_ten_only_costs_time(tmp_path: Path) -> None:
    faults = ["crash", "unconverged", "empty output", "truncated output", "not a number", "wrong atom order", "wrong cell"]
    rng = random.Random(5)
    tokens = {f"{kind}{n:03d}": rng.choice(faults) if rng.random() < 0.3 else "" for kind in "az" for n in range(200)}
    targets = "target_force_error = 0.15\ntarget_energy_error = 0.05\naccurate_share = 0.7\n[budget]\niterations = 6"
    found = campaign(tmp_path / "campaign", tokens, targets)
    labels = found.status()["labels"]
    assert labels["rejected"] >= 0.3 * labels["asked"]
    assert labels["asked"] == labels["accepted"] + labels["quarantined"] + labels["rejected"]
    decision = found.status()["decision"]
    assert decision["kind"] == "converged", decision
    assert_clean(found)


EMT = """
name = "repeats"
structures = ["Cu.extxyz"]
[labeller]
type = "ase"
calculator = "ase.calculators.emt:EMT"
[checks]
repeat_share = 0.3
[seeds]
rattled = 50
strained = 0
hot = 0
"""


def test_the_share_of_labels_asked_for_is_repeated_and_each_time_the_same_ones(tmp_path: Path) -> None:
    repeated = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_frames(folder / "Cu.extxyz", [Frame.of(bulk("Cu", cubic=True), Origin("given"))])
        (folder / "campaign.toml").write_text(EMT)
        layout = Layout.open(folder)
        run_stage(layout, StageRequest(Stage.EXPLORE, 0, 0))
        asked = int(run_stage(layout, StageRequest(Stage.SELECT, 0, 0)).result["labels"])
        labels = [run_stage(layout, StageRequest(Stage.LABEL, 0, n)) for n in range(asked)]
        assert {label.result["verdict"] for label in labels} == {LabelVerdict.ACCEPTED.value}
        repeated.append([label.times["computed"] == 2 for label in labels])
    assert repeated[0] == repeated[1]
    assert 0.1 < np.mean(repeated[0]) < 0.5


def test_a_broken_code_stops_the_campaign_and_says_why(tmp_path: Path) -> None:
    tokens = {f"a{n:03d}": "crash" for n in range(60)}
    with pytest.raises(
        RunError, match=r"\d+ of \d+ labels of iteration 0 are refused: \d+ crashed; e.g. crashed: exit 1: MPI_ABORT"
    ):
        campaign(tmp_path / "campaign", tokens)
    layout = Layout.open(tmp_path / "campaign")
    asked = len(list(layout.stage(0, Stage.LABEL).glob("*/manifest.json")))
    assert retry(layout) == asked
    assert not list(layout.stage(0, Stage.LABEL).glob("*/manifest.json"))

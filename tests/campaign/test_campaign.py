import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.explain import MEANING
from al_leignn.campaign.history import History, WalkerRow
from al_leignn.campaign.item import member_files
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import holding
from al_leignn.core import DecisionKind, Purpose, Stage, StageRequest
from al_leignn.errors import CampaignError, InputError, RunError
from al_leignn.quantities import ENERGY, WORST_ATOM
from al_leignn.select.classify import classify
from al_leignn.select.fate import Fate
from al_leignn.store import read_manifest

TAKEN = (Fate.TRAIN, Fate.RESCUED, Fate.NOVEL, Fate.FRESH)


@pytest.fixture
def copy(emt_campaign: Path, tmp_path: Path) -> Layout:
    """A campaign that may be damaged."""
    shutil.copytree(emt_campaign, tmp_path / "copy")
    return Layout.open(tmp_path / "copy")


@pytest.fixture
def unstarted(emt_campaign: Path, tmp_path: Path) -> Layout:
    (tmp_path / "campaign.toml").write_bytes((emt_campaign / "campaign.toml").read_bytes())
    return Layout.open(tmp_path)


def fates(history: History) -> dict[Fate, str]:
    """A frame of each fate that occurs."""
    found: dict[Fate, str] = {}
    for i in range(history.iterations):
        pool = history.pool(i)
        assert pool is not None
        found |= {Fate(fate): str(uid) for fate, uid in zip(pool["fate"], pool["uid"], strict=True)}
    return found


# --- status ----------------------------------------------------------------------------------------------


def test_status_counts_what_lies_on_disk(emt_campaign: Path) -> None:
    found = Campaign.open(emt_campaign).status()
    labels = sorted(emt_campaign.glob("iterations/*/label/*/manifest.json"))
    manifests = [read_manifest(path.parent) for path in labels]
    assert found["name"] == "Cu3Al"
    assert found["iteration"] == 2
    assert found["labels"]["asked"] == len(labels) > 0
    verdicts = [m.result["verdict"] for m in manifests if m]
    assert [found["labels"][v] for v in ("accepted", "quarantined", "rejected")] == [
        verdicts.count(v) for v in ("accepted", "quarantined", "rejected")
    ]
    assert found["labels"]["computed"] == sum(m.times["paid"] for m in manifests if m)
    assert found["labels"]["core_s"] == pytest.approx(sum(m.times["label_cpu_s"] for m in manifests if m))
    assert found["stages"]["train"] == {"done": 2, "expected": 2}
    assert found["finished"]
    assert found["running"] is None
    assert found["damaged"] == []
    assert found["decision"]["kind"] == DecisionKind.BUDGET_SPENT
    assert found["decision"]["iteration"] == 2
    assert "2 of 2 iterations" in found["decision"]["reason"]
    json.dumps(found, allow_nan=False)


def test_share_of_md_steps_without_a_label(emt_campaign: Path) -> None:
    found = Campaign.open(emt_campaign).status()["md"]
    history = History(Layout.open(emt_campaign))
    steps = sum(int(w["steps"]) for i in (1, 2) for w in history.walkers(i))
    labels = sum(len(history.items(Stage.LABEL, i)) for i in (1, 2))
    assert found["steps"] == steps
    assert found["without_label"] == pytest.approx(1 - labels / steps)


def test_status_before_the_first_iteration(unstarted: Layout) -> None:
    found = Campaign(unstarted).status()
    assert found["iteration"] is None
    assert found["decision"] is None
    assert found["stages"] == {}
    assert found["labels"]["asked"] == found["data"]["train"] == found["md"]["steps"] == 0
    assert found["md"]["without_label"] is None
    json.dumps(found, allow_nan=False)


def test_no_campaign_is_an_error_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="no campaign here"):
        Campaign.open(tmp_path)


def test_status_names_the_process_that_runs(copy: Layout) -> None:
    with holding(copy.lock, "a test"):
        assert "a test" in Campaign(copy).status()["running"]
    assert Campaign(copy).status()["running"] is None


@pytest.mark.parametrize("stage", [Stage.EXPLORE, Stage.SELECT, Stage.LABEL, Stage.COLLECT, Stage.VALIDATE, Stage.CONVERGE])
def test_damaged_manifests_are_named_and_nothing_breaks(copy: Layout, stage: Stage) -> None:
    path = copy.item(StageRequest(stage, 1, 0)) / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    campaign = Campaign(copy)
    assert str(path) in "".join(campaign.status()["damaged"])
    campaign.history()
    campaign.frames()


def test_no_decision_on_a_damaged_history(copy: Layout) -> None:
    assert len(History(copy).summaries(3)) == 3
    path = copy.item(StageRequest(Stage.LABEL, 1, 0)) / "manifest.json"
    path.write_bytes(b"{")
    with pytest.raises(RunError, match="damaged"):
        History(copy).summaries(3)
    path.unlink()
    with pytest.raises(RunError, match="not published"):
        History(copy).summaries(3)


def test_status_loads_nothing_heavy(emt_campaign: Path) -> None:
    program = (
        "import sys; from al_leignn.campaign.campaign import Campaign; Campaign.open(sys.argv[1]).status();"
        "print(*{'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn', 'ase.io', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(emt_campaign)], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == []


# --- history ---------------------------------------------------------------------------------------------


def test_history_has_a_row_for_each_iteration_and_walker(emt_campaign: Path) -> None:
    table = Campaign.open(emt_campaign).history()
    assert list(table.columns) == list(WalkerRow._fields)
    assert list(zip(table["iteration"], table["walker"], strict=True)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert list(table["temperature"]) == [300.0, 600.0] * 2
    assert np.allclose(table["accurate"] + table["candidate"] + table["failed"], 1.0)
    assert (table["median"] <= table["q90"]).all()
    assert (table["q90"] <= table["max"]).all()
    assert (table["bound_90"] > 0).all()


def test_history_is_what_the_committee_says_of_the_frames(emt_campaign: Path) -> None:
    """Deviations recomputed with the committee that ran the MD, from the stored frames."""
    from al_leignn.deviation import deviation
    from al_leignn.model.committee import Committee
    from al_leignn.store import read_frames

    layout = Layout.open(emt_campaign)
    frames = read_frames(layout.item(StageRequest(Stage.EXPLORE, 2, 1)) / "frames.extxyz")
    predictions = Committee.load(member_files(layout, 1)).predict([frame.atoms for frame in frames])
    largest = [deviation(prediction).max for prediction in predictions]
    row = Campaign(layout).history().iloc[-1]
    assert row["max"] == pytest.approx(max(largest), rel=1e-4)
    assert row["median"] == pytest.approx(np.median(largest), rel=1e-4)


def test_history_before_any_md(unstarted: Layout) -> None:
    table = Campaign(unstarted).history()
    assert len(table) == 0
    assert list(table.columns) == list(WalkerRow._fields)


# --- frames ----------------------------------------------------------------------------------------------


def test_frames_carry_true_labels(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    train, fresh, both = campaign.frames("train"), campaign.frames("fresh"), campaign.frames()
    assert {"train": len(train), "fresh": len(fresh)} == campaign.status()["data"]
    assert len({atoms.info["uid"] for atoms in both}) == len(both) == len(train) + len(fresh)
    assert {atoms.info["origin"] for atoms in both} >= {"given", "rattle", "strain", "md"}
    for atoms in both[::5]:
        again = atoms.copy()
        again.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(again.get_potential_energy(), abs=1e-5)
        assert np.allclose(atoms.get_forces(), again.get_forces(), atol=1e-4)


def test_there_are_two_splits(emt_campaign: Path) -> None:
    with pytest.raises(ValueError, match="test"):
        Campaign.open(emt_campaign).frames("test")


# --- explain ---------------------------------------------------------------------------------------------


def test_explain_a_frame_of_every_fate(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    known = fates(History(campaign.layout))
    assert {Fate.TRAIN, Fate.FRESH} < set(known), "the campaign refused no frame: it proves too little"
    for fate, uid in known.items():
        found = campaign.explain(uid)
        json.dumps(found, allow_nan=False)
        assert found["uid"] == uid
        assert found["fate"] == fate
        assert found["formula"] == "AlCu3"
        assert (found["label"] is not None) == (fate in TAKEN)
        if fate in TAKEN:
            purpose = Purpose.FRESH if fate is Fate.FRESH else Purpose.TRAIN
            assert found["label"]["purpose"] == purpose
            assert found["split"] == (purpose if found["label"]["verdict"] == "accepted" else None)
        else:
            assert found["why"].startswith("refused")
            assert found["split"] is None


def test_every_fate_has_its_explanation() -> None:
    assert set(MEANING) == set(Fate)


def test_explain_gives_the_numbers_of_its_time(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    history = History(campaign.layout)
    samples = history.samples(2, 1)
    n = len(samples["uid"]) // 2
    found = campaign.explain(str(samples["uid"][n]))
    start = int(samples["atoms"][:n].sum())
    per_atom = samples["per_atom"][start : start + 4]
    lo, hi = found["thresholds"]["lo"], found["thresholds"]["hi"]
    assert found["origin"] == {"kind": "md", "iteration": 2, "walker": 1, "step": int(samples["step"][n]), "temperature": 600.0}
    assert found["deviation"]["max"] == pytest.approx(float(samples["max_deviation"][n]))
    assert found["deviation"]["max"] == pytest.approx(float(per_atom[found["deviation"]["worst_atom"]]))
    assert found["thresholds"] == history.result(Stage.VALIDATE, 1)["trust"]
    assert found["verdict"] == classify(np.array([found["deviation"]["max"]]), lo, hi)[0]
    before = history.result(Stage.VALIDATE, 1)
    assert found["bounds"][WORST_ATOM] == pytest.approx(before["calibration"]["factor"] * found["deviation"]["max"])
    assert found["bounds"][ENERGY] == pytest.approx(
        before["quantities"][ENERGY]["calibration"]["factor"] * found["deviation"]["energy"]
    )
    pool = history.pool(2)
    assert pool is not None
    assert found["novelty"] == pool["novelty"][list(pool["uid"]).index(found["uid"])]


def test_errors_of_a_fresh_frame_are_those_of_each_committee(emt_campaign: Path) -> None:
    from al_leignn.model.committee import Committee

    campaign = Campaign.open(emt_campaign)
    atoms = next(a for a in campaign.frames("fresh") if a.info["origin"] == "md" and a.info["iteration"] == 1)
    errors = campaign.explain(atoms.info["uid"])["errors"]
    assert [error["iteration"] for error in errors] == [1, 2]
    for error in errors:
        committee = Committee.load(member_files(campaign.layout, error["iteration"]))
        mean = committee.predict([atoms])[0].mean()
        assert error["force_mae"] == pytest.approx(np.abs(mean.forces - atoms.get_forces()).mean(), rel=1e-3, abs=1e-6)
        assert error["energy_error"] == pytest.approx(abs(mean.energy - atoms.get_potential_energy()) / 4, rel=1e-3, abs=1e-6)


def test_explain_a_frame_that_the_user_gave(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    given = [atoms for atoms in campaign.frames() if atoms.info["origin"].startswith("data")]
    assert len(given) == 6
    for atoms in given:
        found = campaign.explain(atoms.info["uid"])
        assert found["why"] == "given by the user with its label"
        assert found["split"] == atoms.info["split"]
        assert (found["fate"], found["label"]) == (None, None)


def test_explain_a_frame_before_its_selection(copy: Layout) -> None:
    history = History(copy)
    uid = str(history.samples(2, 0, "uid")["uid"][0])
    for stage in list(Stage)[1:]:
        shutil.rmtree(copy.stage(2, stage))
    found = Campaign(copy).explain(uid)
    assert found["fate"] is None
    assert "still to come" in found["why"]
    assert found["deviation"]["max"] > 0


def test_explain_takes_the_beginning_of_an_identity(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    uid = campaign.frames("train")[0].info["uid"]
    assert campaign.explain(uid[:12])["uid"] == uid
    assert campaign.explain(f"u{uid[:12].upper()}")["uid"] == uid
    with pytest.raises(InputError, match="frames begin with"):
        campaign.explain(_shared_beginning(campaign))


def _shared_beginning(campaign: Campaign) -> str:
    first = sorted(str(atoms.info["uid"])[0] for atoms in campaign.frames())
    return next(a for a, b in pairwise(first) if a == b)


@pytest.mark.parametrize("uid", ["", "u", "xyz"])
def test_unknown_frames_are_the_users_mistake(emt_campaign: Path, uid: str) -> None:
    with pytest.raises(InputError, match="no frame is called") as error:
        Campaign.open(emt_campaign).explain(uid)
    assert "did you mean" in error.value.fix


def test_a_mistyped_identity_finds_its_neighbour(emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    uid = campaign.frames("train")[0].info["uid"]
    with pytest.raises(InputError) as error:
        campaign.explain(uid[:-1] + "x")
    assert uid in error.value.fix


def test_explain_before_the_first_frame(unstarted: Layout) -> None:
    with pytest.raises(InputError) as error:
        Campaign(unstarted).explain("abc")
    assert "no frames yet" in error.value.fix


def test_the_newest_committee_drives_md(emt_campaign: Path) -> None:
    from al_leignn.model.committee import Committee

    campaign = Campaign.open(emt_campaign)
    atoms = campaign.frames("train")[0]
    atoms.calc = Committee.load(campaign.committee_file()).calculator()
    assert atoms.get_forces().shape == (len(atoms), 3)

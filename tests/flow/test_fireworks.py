"""What is put into the queue, what a task does, and that plain FireWorks commands can do the work."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fireworks import FWorker, LaunchPad
from fireworks.core.rocket import Rocket

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.stages import run_stage
from al_leignn.core import Stage, StageRequest
from al_leignn.flow.embedded import LaunchpadAddress
from al_leignn.flow.fireworks import CATEGORIES, NO_LAST, add_workflow, iteration_workflow, queue_status, worker
from al_leignn.store import read_manifest
from tests.waiting import wait_for

WORKER = "import sys; from pathlib import Path; from al_leignn.flow.worker import worker; worker(Path(sys.argv[1]))"


def published(layout: Layout, stage: Stage, iteration: int = 0, item: int = 0) -> bool:
    return read_manifest(layout.item(StageRequest(stage, iteration, item))) is not None


def states(launchpad: LaunchPad) -> dict[str, list[str]]:
    """States of the Fireworks by name."""
    found: dict[str, list[str]] = {}
    for job in launchpad.fireworks.find({}, {"name": 1, "state": 1}):
        found.setdefault(job["name"], []).append(job["state"])
    return found


def test_workflow_of_an_iteration(campaign: Layout) -> None:
    campaign.open_iteration(1)
    workflow = iteration_workflow(campaign, 1, NO_LAST)
    names = {job.fw_id: job.name for job in workflow.fws}
    links = {(names[parent], names[child]) for parent, children in workflow.links.items() for child in children}
    assert links == {
        ("explore 1/0", "select 1/0"),
        ("explore 1/1", "select 1/0"),
        ("select 1/0", "collect 1/0"),
        ("collect 1/0", "train 1/0"),
        ("collect 1/0", "train 1/1"),
        ("train 1/0", "validate 1/0"),
        ("train 1/1", "validate 1/0"),
        ("validate 1/0", "converge 1/0"),
    }
    assert workflow.metadata == {"campaign": str(campaign.root), "name": "2026-01-31", "iteration": 1}


def test_specs_hold_no_more_than_words_and_numbers(campaign: Layout) -> None:
    campaign.open_iteration(0)
    for job in iteration_workflow(campaign, 0, 3).fws:
        spec = {key: value for key, value in job.spec.items() if key != "_tasks"}
        assert {type(value) for value in spec.values()} <= {str, int, bool}
        assert spec["campaign"] == str(campaign.root)
        assert spec["_category"] == CATEGORIES[Stage(spec["stage"])]
        assert [task.to_dict() for task in job.tasks] == [{"_fw_name": "{{al_leignn.flow.fireworks.StageTask}}"}]


def test_what_is_due_is_added_once(campaign: Layout, launchpad: LaunchPad) -> None:
    assert add_workflow(launchpad, campaign, NO_LAST)
    assert not add_workflow(launchpad, campaign, NO_LAST)
    assert launchpad.workflows.count_documents({}) == 1


def test_nothing_is_added_beyond_the_last_wanted(campaign: Layout, launchpad: LaunchPad) -> None:
    assert not add_workflow(launchpad, campaign, -2)
    assert launchpad.workflows.count_documents({}) == 0


def test_worker_ends_an_iteration_adds_the_next_and_leaves_nothing_behind(
    campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    add_workflow(launchpad, campaign, 1)
    worker_elsewhere = subprocess.Popen([sys.executable, "-c", WORKER, str(server.file)], cwd=here)
    wait_for(lambda: published(campaign, Stage.CONVERGE) and len(states(launchpad)) > 20, "the next workflow", 60)
    worker_elsewhere.terminate()
    assert worker_elsewhere.wait(timeout=30) == 0
    assert not list(here.iterdir())
    assert not list(campaign.root.rglob("FW.json"))
    first, second = sorted(launchpad.workflows.find(), key=lambda workflow: workflow["metadata"]["iteration"])
    assert first["state"] == "COMPLETED"
    assert second["metadata"] == {"campaign": str(campaign.root), "name": "2026-01-31", "iteration": 1}
    selection = read_manifest(campaign.item(StageRequest(Stage.SELECT, 0, 0)))
    assert selection is not None
    labels = {name for name in states(launchpad) if name.startswith("label 0/")}
    assert len(labels) == selection.result["labels"]
    assert queue_status(server.file)["COMPLETED"] >= len(labels) + 7
    stored = [str(list(collection.find())) for collection in (launchpad.fireworks, launchpad.launches, launchpad.workflows)]
    assert str(campaign.root) in stored[0]
    assert not any(launchpad.password in text for text in stored)


def test_worker_takes_its_category_and_campaign_only(
    campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress, tmp_path: Path
) -> None:
    add_workflow(launchpad, campaign, 0)
    worker(server.file, category="label", until_idle_s=0.0)
    worker(server.file, campaign=tmp_path / "another", until_idle_s=0.0)
    assert not published(campaign, Stage.EXPLORE)
    worker(server.file, category="explore", campaign=campaign.root, until_idle_s=0.0)
    assert published(campaign, Stage.EXPLORE)
    assert not published(campaign, Stage.SELECT)


def test_finished_items_are_not_done_again(
    campaign: Layout, launchpad: LaunchPad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = run_stage(campaign, StageRequest(Stage.EXPLORE, 0, 0))
    add_workflow(launchpad, campaign, 0)
    assert Rocket(launchpad, FWorker(), None).run()
    assert states(launchpad)["explore 0/0"] == ["COMPLETED"]
    assert read_manifest(campaign.item(StageRequest(Stage.EXPLORE, 0, 0))) == before


def test_plain_rlaunch_does_the_work(campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress, tmp_path: Path) -> None:
    add_workflow(launchpad, campaign, 0)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    rlaunch = Path(sys.executable).with_name("rlaunch")
    command = [str(rlaunch), "-s", "-l", str(server.file), "rapidfire", "--nlaunches", "infinite", "--sleep", "1"]
    process = subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: published(campaign, Stage.COLLECT), "the data set", 60)
    finally:
        process.terminate()
        process.wait()


def test_stopped_worker_puts_its_item_back(
    make_campaign: Callable[..., Layout], launchpad: LaunchPad, server: LaunchpadAddress, tmp_path: Path
) -> None:
    campaign = make_campaign(tmp_path / "campaign", ("steps = 60", "steps = 100000000"))
    add_workflow(launchpad, campaign, 0)
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(server.file)])
    wait_for(
        lambda: "RUNNING" in states(launchpad).get("train 0/0", []) + states(launchpad).get("train 0/1", []), "a trainer", 60
    )
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    found = states(launchpad)
    (stopped,) = [name for name, state in found.items() if name.startswith("train") and len(state) == 2]
    assert sorted(found[stopped]) == ["COMPLETED", "READY"]
    assert found["validate 0/0"] == ["WAITING"]
    assert not list(campaign.root.rglob(".scratch-*"))

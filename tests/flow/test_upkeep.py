"""A queue left in the states that a worker killed at the worst instant leaves it in."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fireworks import Firework, FWorker, LaunchPad
from fireworks.core.rocket_launcher import launch_rocket

from al_leignn.campaign.layout import Layout
from al_leignn.flow import upkeep
from al_leignn.flow.embedded import LaunchpadAddress
from al_leignn.flow.fireworks import NO_LAST, StageTask, add_workflow
from al_leignn.flow.upkeep import Upkeep
from al_leignn.flow.worker import LocalWorkers

Damage = Callable[[LaunchPad], object]


@pytest.fixture
def keeper(campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress, monkeypatch: pytest.MonkeyPatch) -> Upkeep:
    """Upkeep of a campaign without local workers, that looks at every check."""
    monkeypatch.setattr(upkeep, "_LOOK_S", 0.0)
    crew = LocalWorkers(server.file, campaign, 0)
    return Upkeep(launchpad, campaign, crew, refill=lambda: add_workflow(launchpad, campaign, NO_LAST))


def lock(launchpad: LaunchPad) -> object:
    return launchpad.workflows.update_one({}, {"$set": {"locked": True}})


def lose_the_workflow(launchpad: LaunchPad) -> object:
    return launchpad.workflows.delete_one({})


def check_out_halfway(launchpad: LaunchPad) -> object:
    return launchpad._get_a_fw_to_run()


def check_out(launchpad: LaunchPad, worker: str = "local host 1 1") -> int:
    job, launch_id = launchpad.checkout_fw(FWorker(name=worker), "/nowhere")
    assert job is not None
    return int(launch_id)


def ready(launchpad: LaunchPad) -> bool:
    """Whether the whole workflow is there, and its first item can be taken."""
    jobs = list(launchpad.fireworks.find())
    workflows = list(launchpad.workflows.find())
    return (
        len(workflows) == 1
        and "locked" not in workflows[0]
        and sorted(workflows[0]["nodes"]) == sorted(job["fw_id"] for job in jobs)
        and [job["name"] for job in jobs if job["state"] == "READY"] == ["explore 0/0"]
        and {job["state"] for job in jobs} == {"READY", "WAITING"}
    )


DAMAGES = [lock, lose_the_workflow, check_out_halfway, check_out]


@pytest.mark.parametrize("damage", DAMAGES)
def test_found_damaged_at_the_start(keeper: Upkeep, launchpad: LaunchPad, damage: Damage) -> None:
    keeper.begin()
    damage(launchpad)
    keeper.begin()
    assert ready(launchpad)


@pytest.mark.parametrize("damage", [lock, lose_the_workflow, check_out_halfway])
def test_damaged_while_running(keeper: Upkeep, launchpad: LaunchPad, damage: Damage) -> None:
    keeper.begin()
    damage(launchpad)
    keeper.check()
    assert not ready(launchpad)  # seen once it may be work in progress
    keeper.check()
    assert ready(launchpad)


def test_an_item_that_ran_before_its_parents_runs_again_in_its_turn(
    keeper: Upkeep, launchpad: LaunchPad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # FireWorks leaves a file where it works
    keeper.begin()
    for name, state in (("explore 0/0", "COMPLETED"), ("select 0/0", "READY")):  # told of what was never done
        job = launchpad.fireworks.find_one_and_update({"name": name}, {"$set": {"state": state}})
        launchpad.workflows.update_one({}, {"$set": {f"fw_states.{job['fw_id']}": state}})
    launch_rocket(launchpad, FWorker())
    assert [job["state"] for job in launchpad.fireworks.find({"name": "select 0/0"})] == ["FIZZLED"]
    keeper.check()
    assert ready(launchpad)


def test_what_is_well_is_left_alone(keeper: Upkeep, launchpad: LaunchPad) -> None:
    keeper.begin()
    before = list(launchpad.fireworks.find())
    for _ in range(3):
        keeper.check()
    assert list(launchpad.fireworks.find()) == before


def test_work_of_a_worker_elsewhere_is_left_alone(keeper: Upkeep, launchpad: LaunchPad) -> None:
    keeper.begin()
    check_out(launchpad, "al-leignn far 7")
    keeper.begin()
    keeper.check()
    assert [job["name"] for job in launchpad.fireworks.find({"state": "RUNNING"})] == ["explore 0/0"]
    assert launchpad.workflows.count_documents({}) == 1


def test_silent_worker_elsewhere_loses_its_item(keeper: Upkeep, launchpad: LaunchPad) -> None:
    keeper.begin()
    launch_id = check_out(launchpad, "al-leignn far 7")
    launchpad.ping_launch(launch_id, ptime=datetime.now(UTC) - timedelta(seconds=upkeep.LOST_S + 1))
    keeper.check()
    assert ready(launchpad)


def test_other_work_in_the_same_database_is_not_touched(keeper: Upkeep, launchpad: LaunchPad) -> None:
    ids = launchpad.add_wf(Firework([StageTask()], name="mine"))
    keeper.begin()
    for damage in DAMAGES[1:3]:
        damage(launchpad)
        keeper.check()
        keeper.check()
    keeper.begin()
    (other,) = launchpad.fireworks.find({"name": "mine"})
    assert other["fw_id"] in ids.values()


def test_campaign_folder_may_have_any_name(make_campaign: Callable[..., Layout], launchpad: LaunchPad, tmp_path: Path) -> None:
    layout = make_campaign(tmp_path / "a (b) [c] $d.é 2026-01-01T00:00:00")
    assert add_workflow(launchpad, layout, NO_LAST)
    assert launchpad.fireworks.count_documents({"spec.campaign": str(layout.root)}) == 7
    job, _ = launchpad.checkout_fw(FWorker(), str(tmp_path))
    assert job.spec["campaign"] == str(layout.root)

"""The queue runner: one FireWorks workflow an iteration, made of one kind of task.

    explore × n ─► select ─► label × n ─► collect ─► train × n ─► validate ─► converge ─► (the next workflow)

How many labels there are is known only after `select`, whose task puts them in as a detour; after `converge`, its task
adds the workflow of the next iteration. A Firework names an item of work by strings and integers; what is done is said by
the campaign folder alone. So every item may be run again, a queue may be thrown away and built anew, and the two runners
end with the same files.

A label that could not be had is a result, and its task completes; only a labeller that cannot work at all fails it. So
`collect` waits for labels that failed (no `_allow_fizzled_parents`): it could not do without them, and a lost run, which
FireWorks marks as failed for a moment before it is run again, would let it start too early.
"""

import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fireworks import FiretaskBase, Firework, FWAction, LaunchPad, Workflow
from pymongo.errors import PyMongoError

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import holding
from al_leignn.campaign.mend import mend
from al_leignn.campaign.plan import next_requests, remaining
from al_leignn.campaign.schedule import explore_items
from al_leignn.campaign.stages import run_stage
from al_leignn.campaign.state import State, scan
from al_leignn.core import Decision, Stage, StageRequest
from al_leignn.errors import AlLeignnError, DamagedArtifactError, QueueError
from al_leignn.flow.embedded import serving
from al_leignn.flow.launchpad import open_launchpad, queue_status
from al_leignn.flow.upkeep import Upkeep
from al_leignn.flow.watch import Watcher
from al_leignn.flow.worker import STAGE_TASK, STOP, LocalWorkers, Stopped, worker
from al_leignn.store import read_manifest, sweeping_scratch

__all__ = ["StageTask", "launch", "queue_status", "worker"]

CATEGORIES = {
    Stage.EXPLORE: "explore",
    Stage.SELECT: "glue",
    Stage.LABEL: "label",
    Stage.COLLECT: "glue",
    Stage.TRAIN: "train",
    Stage.VALIDATE: "train",  # it evaluates the committee: a device that trains it serves here as well
    Stage.CONVERGE: "glue",
}
"""Which workers take which stage."""

NO_LAST = -1

_POLL_S = 0.2
_SETTLE_S = 5.0
_SESSIONS = 5


def launch(
    layout: Layout, *, launchpad_file: Path | None, workers: int, max_iterations: int | None, watcher: Watcher
) -> Decision | None:
    """Run a campaign through a FireWorks queue, until it decides to stop or `max_iterations` more iterations are decided.

    Always resumes: what is published stays, what was cut off is done again. Returns the last decision.

    Parameters
    ----------
    launchpad_file
        my_launchpad.yaml of the user's own MongoDB; None: an embedded server, for as long as this runs.
    workers
        Worker processes to run here. Others may join from elsewhere at any time; with 0, all work is theirs.

    Raises
    ------
    CampaignLockedError
        If another runner works on this campaign.
    QueueError
        If the queue does not start or does not answer.
    AlLeignnError
        What an item failed with; everything else that was under way is finished and published first.
    """
    with holding(layout.lock, "al-leignn launch"), sweeping_scratch(layout.root):
        for damage in mend(layout):
            warnings.warn(damage, stacklevel=2)
        state = scan(layout)
        if not next_requests(state):
            return state.decision
        wanted = None if max_iterations is None else _decided(state) + max_iterations
        for _ in range(_SESSIONS):
            try:
                with ExitStack() as stack:
                    file = stack.enter_context(serving(layout.queue)).file if launchpad_file is None else launchpad_file.resolve()
                    return _session(layout, file, workers, wanted, watcher)
            except PyMongoError:
                continue  # the server died, or the network did: nothing is lost with them
        raise QueueError("the queue stops answering again and again", where=str(file), fix="the same command continues")


def _session(layout: Layout, file: Path, workers: int, wanted: int | None, watcher: Watcher) -> Decision | None:
    """Work with one queue until `wanted` iterations are decided, or the campaign is."""
    last = NO_LAST if wanted is None else wanted - 1
    with ExitStack() as stack:
        launchpad = open_launchpad(file)
        stack.callback(launchpad.connection.close)
        if launchpad.fw_id_assigner.find_one({}) is None:
            launchpad.reset("", require_password=False)  # an empty database: makes counters and indexes
        crew = LocalWorkers(file, layout, workers)
        stack.callback(crew.stop)
        upkeep = Upkeep(launchpad, layout, crew, refill=lambda: add_workflow(launchpad, layout, last))
        upkeep.begin()
        launchpad.fireworks.update_many({"spec.campaign": str(layout.root)}, {"$set": {"spec.last": last}})
        crew.start()
        try:
            decision = _watch(layout, upkeep, wanted, watcher)
            _settle(launchpad, layout)
        except PyMongoError:
            crew.stop(grace_s=0.0)  # without a queue they cannot put anything back
            raise
        return decision


def _watch(layout: Layout, upkeep: Upkeep, wanted: int | None, watcher: Watcher) -> Decision | None:
    """Look on while workers publish one stage after another."""
    told = _decided(scan(layout))
    while True:
        state = scan(layout)
        for iteration in range(told, _decided(state)):
            watcher.decided(layout, iteration)
        told = _decided(state)
        requests = next_requests(state)
        if not requests or told == wanted:
            return state.decision
        watcher.begin(requests)
        try:
            pending = list(requests)
            while pending:
                for request in [r for r in pending if _is_published(layout, r)]:
                    pending.remove(request)
                    watcher.finished(request)
                if pending:
                    upkeep.check()
                    time.sleep(_POLL_S)
        finally:
            watcher.end()


def _decided(state: State) -> int:
    """How many iterations have their decision. (Several stages may pass between two looks.)"""
    return sum(iteration.decision is not None for iteration in state.iterations)


def _is_published(layout: Layout, request: StageRequest) -> bool:
    try:
        return read_manifest(layout.item(request)) is not None
    except DamagedArtifactError:
        return False


def _settle(launchpad: LaunchPad, layout: Layout) -> None:
    """Let the last task finish its bookkeeping, so that the queue shows a finished workflow as finished."""
    deadline = time.monotonic() + _SETTLE_S
    while launchpad.workflows.find_one(unfinished(layout), {"_id": 1}) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


class StageTask(FiretaskBase):  # type: ignore[misc]
    """Do one item of work, and put into the queue what follows from it.

    Queues hold this class by its path: it is never moved or renamed.
    """

    _fw_name = STAGE_TASK

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        try:
            return self._do(fw_spec)
        except AlLeignnError as error:
            raise StageError(error) from error

    def _do(self, spec: dict[str, Any]) -> FWAction:
        layout = Layout.open(Path(spec["campaign"]))
        request = StageRequest(Stage(spec["stage"]), int(spec["iteration"]), int(spec["item"]))
        last = int(spec["last"])
        try:
            with STOP.interruptible():
                run_stage(layout, request)
        except Stopped:
            # This launch is over, the item is not: it goes to another worker before anything that waits for it.
            return FWAction(detours=[stage_firework(layout, request, last)])
        if request.stage is Stage.SELECT:
            labels = label_workflow(layout, request.iteration, last)
            return FWAction(detours=[labels] if labels is not None else [])
        if request.stage is Stage.CONVERGE:
            add_workflow(self.launchpad, layout, last)
        return FWAction()


class StageError(Exception):
    """A deliberate error, in the form that FireWorks stores with the launch that failed."""

    def __init__(self, error: AlLeignnError) -> None:
        super().__init__(str(error))
        self._error = error

    def to_dict(self) -> dict[str, str]:
        error = self._error
        return {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}


# --- workflows -------------------------------------------------------------------------------------------


def stage_firework(layout: Layout, request: StageRequest, last: int, parents: list[Firework] | None = None) -> Firework:
    """One item of work as a Firework. Its spec holds strings, integers and flags only: the rest is in files."""
    spec: dict[str, str | int | bool] = {
        "campaign": str(layout.root),
        "stage": request.stage.value,
        "iteration": request.iteration,
        "item": request.item,
        "last": last,
        "_category": CATEGORIES[request.stage],
    }
    if request.stage is Stage.CONVERGE:
        spec["_add_launchpad_and_fw_id"] = True
    return Firework([StageTask()], spec=spec, name=str(request), parents=parents)


def iteration_workflow(layout: Layout, iteration: int, last: int) -> Workflow:
    """All of one iteration but its labels."""
    config = layout.config_of(iteration)
    items = {stage: 1 for stage in Stage if stage is not Stage.LABEL}
    items |= {Stage.EXPLORE: explore_items(layout, config, iteration), Stage.TRAIN: config.train.members}
    fireworks: list[Firework] = []
    before: list[Firework] = []
    for stage, count in items.items():
        before = [stage_firework(layout, StageRequest(stage, iteration, n), last, before) for n in range(count)]
        fireworks += before
    metadata = {"campaign": str(layout.root), "name": config.name, "iteration": iteration}
    return Workflow(fireworks, name=f"{config.name} {iteration:03d}", metadata=metadata)


def label_workflow(layout: Layout, iteration: int, last: int) -> Workflow | None:
    """The labels still to be made in an iteration; None if there is none."""
    state = scan(layout)
    missing = [r for r in remaining(state.iterations[iteration]) if r.stage is Stage.LABEL]
    return Workflow([stage_firework(layout, request, last) for request in missing]) if missing else None


def add_workflow(launchpad: LaunchPad, layout: Layout, last: int) -> bool:
    """Put the workflow of the iteration that is due into the queue; returns whether it was added.

    Nothing is added if the campaign has ended, if its `last` wanted iteration is decided, or if the queue has it already.
    """
    requests = next_requests(scan(layout))
    if not requests or (last != NO_LAST and requests[0].iteration > last):
        return False
    iteration = requests[0].iteration
    if launchpad.workflows.find_one(unfinished(layout) | {"metadata.iteration": iteration}, {"_id": 1}) is not None:
        return False
    layout.open_iteration(iteration)
    launchpad.add_wf(iteration_workflow(layout, iteration, last))
    return True


def unfinished(layout: Layout) -> dict[str, Any]:
    """Query for this campaign's workflows that are not done."""
    return {"metadata.campaign": str(layout.root), "state": {"$nin": ["COMPLETED", "ARCHIVED"]}}

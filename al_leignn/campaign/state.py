"""The state of a campaign, scanned from its manifests and stored nowhere else."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from al_leignn.campaign.layout import CONFIG, Layout
from al_leignn.campaign.schedule import explore_items
from al_leignn.config import CampaignConfig
from al_leignn.core import Decision, DecisionKind, LabelVerdict, Stage, StageRequest
from al_leignn.errors import DamagedArtifactError
from al_leignn.store import MANIFEST, Manifest, digest_file, digest_json, read_manifest


@dataclass(frozen=True)
class IterationState:
    """What is done in one iteration. `expected[stage]` is None while the number of items is unknown."""

    index: int
    done: dict[Stage, frozenset[int]]
    expected: dict[Stage, int | None]
    decision: Decision | None = None

    def missing(self, stage: Stage) -> list[int] | None:
        """Items of a stage still to do; None if their number is not known yet."""
        expected = self.expected[stage]
        return None if expected is None else [i for i in range(expected) if i not in self.done[stage]]


@dataclass(frozen=True)
class State:
    """All that the planner needs to know."""

    iterations: tuple[IterationState, ...]
    next_explore_items: int
    """Walker batches of an iteration that would be opened now."""
    reopened: bool = False
    """The last decision was final, but its conditions were edited since: the loop may go on."""
    damaged: tuple[str, ...] = field(default_factory=tuple)
    """Manifests that cannot be read; their items count as not done."""

    @property
    def current(self) -> IterationState | None:
        return self.iterations[-1] if self.iterations else None

    @property
    def decision(self) -> Decision | None:
        """The last decision taken."""
        for iteration in reversed(self.iterations):
            if iteration.decision is not None:
                return iteration.decision
        return None

    @property
    def finished(self) -> bool:
        current = self.current
        return (
            current is not None
            and current.decision is not None
            and current.decision.kind is not DecisionKind.CONTINUE
            and not self.reopened
        )


def scan(layout: Layout) -> State:
    """Read the state of the campaign from disk. Finished iterations cost one manifest each."""
    config = layout.config()
    iterations: list[IterationState] = []
    damaged: list[str] = []
    index = 0
    while (layout.iteration(index) / CONFIG).exists():
        iterations.append(_scan_iteration(layout, index, damaged))
        index += 1
    return State(
        iterations=tuple(iterations),
        next_explore_items=explore_items(layout, config, len(iterations)),
        reopened=_reopened(layout, iterations, config),
        damaged=tuple(damaged),
    )


def converge_digest(config: CampaignConfig) -> str:
    return digest_json([config.converge.digest(), config.budget.digest()])


def _scan_iteration(layout: Layout, index: int, damaged: list[str]) -> IterationState:
    def read(request: StageRequest) -> Manifest | None:
        folder = layout.item(request)
        try:
            return read_manifest(folder)
        except DamagedArtifactError as error:
            damaged.append(str(error))
            return None

    converge = read(StageRequest(Stage.CONVERGE, index, 0))
    decision = None if converge is None else decision_of(converge.result)
    config = layout.config_of(index)
    selection = read(StageRequest(Stage.SELECT, index, 0))
    expected: dict[Stage, int | None] = {
        Stage.EXPLORE: explore_items(layout, config, index),
        Stage.SELECT: 1,
        Stage.LABEL: None if selection is None else int(selection.result["labels"]),
        Stage.COLLECT: 1,
        Stage.TRAIN: config.train.members,
        Stage.VALIDATE: 1,
        Stage.CONVERGE: 1,
    }
    done: dict[Stage, frozenset[int]] = {}
    for stage in Stage:
        # A decision is only ever published over complete stages, so a decided iteration needs no second look.
        items = published_items(layout.stage(index, stage)) if decision is None else range(expected[stage] or 0)
        done[stage] = frozenset(i for i in items if decision is not None or read(StageRequest(stage, index, i)) is not None)
    return IterationState(index, done, expected, decision)


def published_items(folder: Path) -> list[int]:
    """Numbers of the item folders that hold a manifest (readable or not), ascending."""
    return [n for n in item_folders(folder) if (folder / f"{n:04d}/{MANIFEST}").exists()]


def item_folders(folder: Path) -> list[int]:
    """Numbers of the item folders of a stage, ascending."""
    try:
        with os.scandir(folder) as entries:
            return sorted(int(entry.name) for entry in entries if entry.name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []


def decision_of(result: dict[str, Any]) -> Decision:
    return Decision(DecisionKind(result["decision"]), str(result["reason"]), dict(result["conditions"]))


def label_verdict(result: dict[str, Any]) -> LabelVerdict:
    """What became of a label, from the results of its item. (Versions up to 0.1 knew only whether it was accepted.)"""
    if "verdict" in result:
        return LabelVerdict(result["verdict"])
    return LabelVerdict.ACCEPTED if result["accepted"] else LabelVerdict.REJECTED


def _reopened(layout: Layout, iterations: list[IterationState], config: CampaignConfig) -> bool:
    if not iterations or iterations[-1].decision is None:
        return False
    last = iterations[-1].index
    return converge_digest(layout.config_of(last)) != converge_digest(config) or _new_references(layout, last, config)


def _new_references(layout: Layout, iteration: int, config: CampaignConfig) -> bool:
    """Whether an AIMD reference is longer now than the one that was decided by."""
    names = config.converge.references
    validated = read_manifest(layout.item(StageRequest(Stage.VALIDATE, iteration, 0))) if names else None
    if validated is None:
        return False
    files = dict(zip(names, layout.inside(names), strict=True))
    return any(path.is_file() and digest_file(path) != validated.inputs.get(f"reference {name}") for name, path in files.items())

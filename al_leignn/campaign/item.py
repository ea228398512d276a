"""One stage item at work: where it reads, where it writes, what it may draw on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from al_leignn.campaign.layout import CONFIG, Layout
from al_leignn.config import CampaignConfig
from al_leignn.core import Stage, StageRequest
from al_leignn.dataset import Dataset, load_dataset
from al_leignn.errors import CheckpointError, NotPublishedError
from al_leignn.store import Manifest, read_manifest

MEMBER = "member.safetensors"
"""One trained member, in the train stage."""

COMMITTEE = "committee.safetensors"
"""All members in one file for use outside the campaign, in the validate stage."""

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note) while an item runs."""


def no_progress(done: int, total: int, note: str) -> None:
    """For callers that do not watch."""


@dataclass(frozen=True)
class Outcome:
    """What a stage function hands back for its manifest."""

    result: dict[str, Any]
    times: dict[str, float]
    """Extra entries for the part of the manifest that may differ between two equal runs."""


@dataclass(frozen=True)
class Item:
    layout: Layout
    config: CampaignConfig
    request: StageRequest
    scratch: Path
    """Files written here are published together when the stage function returns."""
    report: Progress

    @property
    def iteration(self) -> int:
        return self.request.iteration

    @property
    def seed(self) -> np.random.SeedSequence:
        """Random numbers depend on what is done, never on when or by whom."""
        return np.random.SeedSequence(self.config.seed, spawn_key=tuple(spawn_key(self.request)))

    @property
    def unfinished(self) -> Path:
        """Where long work keeps its state between interruptions; removed once the item is published."""
        return unfinished(self.layout, self.request)

    def folder(self, stage: Stage, iteration: int | None = None, item: int = 0) -> Path:
        return self.layout.item(StageRequest(stage, self.iteration if iteration is None else iteration, item))

    def result(self, stage: Stage, iteration: int | None = None, item: int = 0) -> dict[str, Any]:
        """The small results of a published item."""
        return published(self.layout, StageRequest(stage, self.iteration if iteration is None else iteration, item)).result

    def dataset(self, iterations: int) -> Dataset:
        """Everything collected in iterations 0 .. iterations - 1."""
        return load_dataset([self.folder(Stage.COLLECT, i) for i in range(iterations)])

    def member_files(self, iteration: int) -> list[Path]:
        """The checkpoints trained in an iteration."""
        return member_files(self.layout, iteration)


def unfinished(layout: Layout, request: StageRequest) -> Path:
    folder = layout.item(request)
    return folder.with_name(f".unfinished-{folder.name}")


def member_files(layout: Layout, iteration: int) -> list[Path]:
    members = layout.config_of(iteration).train.members
    return [layout.item(StageRequest(Stage.TRAIN, iteration, m)) / MEMBER for m in range(members)]


def model_file(path: Path) -> Path:
    """The checkpoint that a user names: a file, or a campaign folder, whose newest validated committee it is.

    Raises
    ------
    CheckpointError
        If there is no such file, or the campaign has no committee yet.
    """
    if path.is_file():
        return path
    if not (path / CONFIG).is_file():
        raise CheckpointError("there is no such checkpoint or campaign", where=str(path))
    found = sorted(Layout.open(path).iterations.glob(f"*/{Stage.VALIDATE.value}/*/{COMMITTEE}"))
    if not found:
        raise CheckpointError("this campaign has no committee yet", where=str(path), fix="run `al-leignn run` first")
    return found[-1]


def spawn_key(request: StageRequest) -> list[int]:
    return [request.iteration, list(Stage).index(request.stage), request.item]


def published(layout: Layout, request: StageRequest) -> Manifest:
    """The manifest of an item that must be there; raises `NotPublishedError` where it is not."""
    folder = layout.item(request)
    manifest = read_manifest(folder)
    if manifest is None:
        what, fix = f"{request} is needed and not published", "run `al-leignn run` to compute it"
        raise NotPublishedError(what, where=str(folder), fix=fix)
    return manifest

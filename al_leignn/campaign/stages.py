"""The seven stages: each reads what earlier stages published, calls one pure function, publishes the answer.

`run_stage` is all that a runner needs. Asked for something already published it checks that inputs and settings are
still the same and returns at once, so a repeated launch is harmless.
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from al_leignn.campaign import labelling, learning, sampling
from al_leignn.campaign.item import Item, Outcome, Progress, no_progress, published, spawn_key, unfinished
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.schedule import explore_items
from al_leignn.config import CampaignConfig
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import DamagedArtifactError, RunError, StaleArtifactError
from al_leignn.store import Manifest, Stopwatch, digest_file, digest_json, publishing, read_manifest

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO}


class _Stage(NamedTuple):
    run: Callable[[Item], Outcome]
    sections: tuple[str, ...]
    """Sections of campaign.toml it reads: only a change there makes its results stale."""


_STAGES = {
    Stage.EXPLORE: _Stage(sampling.explore, ("structures", "seeds", "explore")),
    Stage.SELECT: _Stage(sampling.select, ("select", "budget")),
    Stage.LABEL: _Stage(labelling.label, ("labeller", "checks")),
    Stage.COLLECT: _Stage(labelling.collect, ("data", "labeller", "checks")),
    Stage.TRAIN: _Stage(learning.train, ("model", "train")),
    Stage.VALIDATE: _Stage(learning.validate, ("converge", "select")),
    Stage.CONVERGE: _Stage(learning.converge, ("converge", "budget")),
}


def run_stage(layout: Layout, request: StageRequest, report: Progress = no_progress) -> Manifest:
    """Do one item of work, or find it done.

    Raises
    ------
    StaleArtifactError
        If it is published but was made from other inputs or settings; names what differs.
    RunError
        If the disk is full or does not let itself be written to; nothing is published then.
    """
    layout.open_iteration(request.iteration)
    config = layout.config_of(request.iteration)
    stage = _STAGES[request.stage]
    inputs = _inputs(layout, request, config)
    values = config.model_dump(mode="json")
    settings = digest_json({name: values[name] for name in stage.sections})
    folder = layout.item(request)
    done = _done(folder)
    if done is not None:
        _refuse_stale(done, inputs, settings, folder)
        shutil.rmtree(unfinished(layout, request), ignore_errors=True)  # whoever published it may have died on the next line
        return done
    watch = Stopwatch()
    with _told_of_disks(), publishing(folder) as scratch:
        outcome = stage.run(Item(layout, config, request, scratch, report))
        manifest = Manifest(
            stage=request.stage.value,
            iteration=request.iteration,
            item=request.item,
            inputs=inputs,
            config=settings,
            seed=[config.seed, *spawn_key(request)],
            result=outcome.result,
            times=watch.times() | outcome.times,
        )
        manifest.seal(scratch)
    shutil.rmtree(unfinished(layout, request), ignore_errors=True)
    return published(layout, request)


@contextmanager
def _told_of_disks() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        fix = "make room, or see to the permissions; run again to continue, nothing published is lost"
        raise RunError(f"cannot be written: {error.strerror}", where=str(error.filename or ""), fix=fix) from error


def _done(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except DamagedArtifactError:
        return None  # redone and replaced; the scan has reported it


def _refuse_stale(done: Manifest, inputs: Mapping[str, str], settings: str, folder: Path) -> None:
    changed = [name for name in sorted({*inputs, *done.inputs}) if inputs.get(name) != done.inputs.get(name)]
    if done.config != settings:
        changed.append("its settings")
    if changed:
        raise StaleArtifactError(
            f"a published result was made from other inputs: {', '.join(changed)} changed since",
            where=str(folder),
            fix="restore them, or delete this iteration and the later ones to compute it again",
        )


def _inputs(layout: Layout, request: StageRequest, config: CampaignConfig) -> dict[str, str]:
    """Digest of everything a stage reads. Manifests hold digests themselves, so one level is enough."""

    def of(stage: Stage, iteration: int, items: int = 1) -> dict[str, str]:
        needed = [StageRequest(stage, iteration, item) for item in range(items)]
        return {str(n): digest_json(published(layout, n).without_times()) for n in needed}

    def files(kind: str, names: list[str]) -> dict[str, str]:
        return {f"{kind} {name}": digest_file(path) for name, path in zip(names, layout.inside(names), strict=True)}

    i = request.iteration
    before = of(Stage.VALIDATE, i - 1) if i > 0 else {}
    match request.stage:
        case Stage.EXPLORE:
            return files("structure", config.structures) | (before or files("frames", config.seeds.frames))
        case Stage.SELECT:
            return of(Stage.EXPLORE, i, explore_items(layout, config, i)) | before
        case Stage.LABEL:
            return of(Stage.SELECT, i)
        case Stage.COLLECT:
            labels = of(Stage.LABEL, i, int(published(layout, StageRequest(Stage.SELECT, i, 0)).result["labels"]))
            return labels | (files("data", config.data) if i == 0 else of(Stage.COLLECT, i - 1))
        case Stage.TRAIN:
            return of(Stage.COLLECT, i) | before
        case Stage.VALIDATE:
            made = of(Stage.TRAIN, i, config.train.members) | of(Stage.COLLECT, i) | before
            return made | files("reference", config.converge.references)
        case Stage.CONVERGE:
            return of(Stage.VALIDATE, i) | of(Stage.SELECT, i)

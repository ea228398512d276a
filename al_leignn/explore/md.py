"""Molecular dynamics of many walkers at once, driven by a committee that watches itself.

Walkers of different cells, sizes, temperatures and pressures share one committee evaluation per step. Each has its own random
numbers, neighbour list and watchdog: leaving out or stopping one changes nothing for the others. Positions and velocities
are in double precision whatever the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Batch, Sample, Settings, Walker, WalkerReport
from al_leignn.explore.checkpoint import Checkpoint
from al_leignn.explore.driver import Potential
from al_leignn.explore.record import Recorder, read_samples
from al_leignn.explore.watchdog import Limits, StopReason

__all__ = ["Exploration", "Sample", "Walker", "WalkerReport", "explore", "run_md"]

_CHECKPOINT_STEPS = 500
"""Steps between checkpoints, or the next multiple of the stride: each costs a neighbour search of every walker, and three
writes that wait for the disk."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exploration:
    samples: list[Sample]
    """By walker, then by step."""
    walkers: list[WalkerReport]
    """In the order in which walkers were given."""


def explore(
    committee: Potential,
    walkers: Sequence[Walker],
    config: ExploreConfig,
    *,
    iteration: int,
    trust_hi: float,
    seed: np.random.SeedSequence,
    force_scale: float | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
    fingerprint: str = "",
) -> Exploration:
    """Run walkers until each has done its steps or was stopped.

    Every `config.stride` steps all members look at every walker, and the frame is kept. So is the frame at which a walker is
    stopped, if its forces are finite.

    Parameters
    ----------
    iteration
        With `driver = "member"`, member `iteration % K` drives.
    trust_hi
        Model deviation above which a walker is stopped, eV/Å; infinite for none.
    seed
        Walker w draws its random numbers from `seed` with w's index appended to the spawn key.
    force_scale
        Of the relative criterion (`deviation.relative`) by which walkers are stopped, eV/Å; None: absolute.
    progress
        Called after every step with walker-steps done (those a stopped walker leaves out count as done) and in all.
    folder
        Where samples are written as they come, with checkpoints: an interrupted exploration goes on from the last one.
        Without it, samples are held in memory.
    fingerprint
        Names this exploration: a checkpoint of another one in `folder` is not picked up.

    Raises
    ------
    ConfigError, StructureError
        As `batch.check_walkers`; also an element the potential does not know.
    """
    settings = Settings(config, iteration, Limits(trust_hi=trust_hi, force_scale=force_scale))
    if folder is None:
        samples: list[Sample] = []
        reports = _run(committee, walkers, settings, seed, samples.append, progress)
        samples.sort(key=lambda s: (s.frame.origin.walker, s.frame.origin.step))
        return Exploration(samples, reports)
    folder.mkdir(parents=True, exist_ok=True)
    every = config.stride * -(-_CHECKPOINT_STEPS // config.stride)
    checkpoint = Checkpoint(folder / "walkers.safetensors", every, fingerprint)
    out = folder / "samples.extxyz"
    reports = run_recorded(committee, walkers, settings, seed, out, checkpoint, progress)
    return Exploration(read_samples(out, iteration), reports)


def run_md(
    committee: Potential,
    walker: Walker,
    config: ExploreConfig,
    *,
    trust_hi: float = np.inf,
    seed: np.random.SeedSequence,
    on_sample: Callable[[Sample], None],
    progress: Progress | None = None,
) -> WalkerReport:
    """Run one walker, handing over each sample as it comes and keeping none.

    With `config.driver = "member"`, the first member drives.

    Raises
    ------
    ConfigError, StructureError
        As `explore`.
    """
    settings = Settings(config, 0, Limits(trust_hi=trust_hi))
    return _run(committee, [walker], settings, seed, on_sample, progress)[0]


def run_recorded(
    potential: Potential,
    walkers: Sequence[Walker],
    settings: Settings,
    seed: np.random.SeedSequence,
    out: Path,
    checkpoint: Checkpoint,
    progress: Progress | None = None,
    on_sample: Callable[[Sample], None] | None = None,
) -> list[WalkerReport]:
    """Run walkers, samples going to `out` as they come, from the last checkpoint if there is one.

    `on_sample` is also told of each new sample.

    Raises
    ------
    ConfigError, StructureError
        As `explore`.
    """
    if not walkers:
        return []
    resumed = checkpoint.load(potential, walkers, settings)
    # Before a file is made, so that what is refused leaves nothing behind.
    fresh = None if resumed else Batch.start(potential, walkers, settings, seed)
    recorder = Recorder(out, settings.config, resumed.position if resumed else 0)

    def keep(sample: Sample) -> None:
        recorder.add(sample)
        if on_sample is not None:
            on_sample(sample)

    def save(batch: Batch, step: int, reports: dict[int, WalkerReport]) -> None:
        if step % checkpoint.every == 0 or step == settings.config.steps:
            checkpoint.save(batch, step, reports, recorder.mark())

    if fresh is not None:
        reports = _begin(fresh, settings, keep, progress, save)
    elif resumed is not None:
        reports = _go_on(resumed.batch, resumed.step, dict(resumed.reports), settings, keep, progress, save)
    recorder.mark()
    return [reports[walker.index] for walker in walkers]


Save = Callable[[Batch, int, dict[int, WalkerReport]], None]


def _run(
    potential: Potential,
    walkers: Sequence[Walker],
    settings: Settings,
    seed: np.random.SeedSequence,
    on_sample: Callable[[Sample], None],
    progress: Progress | None,
) -> list[WalkerReport]:
    if not walkers:
        return []
    reports = _begin(Batch.start(potential, walkers, settings, seed), settings, on_sample, progress, None)
    return [reports[walker.index] for walker in walkers]


def _begin(
    batch: Batch, settings: Settings, on_sample: Callable[[Sample], None], progress: Progress | None, save: Save | None
) -> dict[int, WalkerReport]:
    """Run walkers from their first step, leaving out those that must not even start."""
    reports: dict[int, WalkerReport] = {}
    running = _stop(batch, 0, batch.stop_reasons(moved=False), reports, on_sample)
    if save and running is not None:
        save(running, 0, reports)
    return _go_on(running, 0, reports, settings, on_sample, progress, save)


def _go_on(
    batch: Batch | None,
    step: int,
    reports: dict[int, WalkerReport],
    settings: Settings,
    on_sample: Callable[[Sample], None],
    progress: Progress | None,
    save: Save | None,
) -> dict[int, WalkerReport]:
    """Reports of all walkers, after those still in the batch have done their steps or were stopped."""
    steps, stride = settings.config.steps, settings.config.stride
    total = (len(reports) + (len(batch.walkers) if batch else 0)) * steps
    while batch is not None and step < steps:
        step += 1
        sampling = step % stride == 0
        batch.step(step, everyone=sampling)
        reasons = batch.stop_reasons(moved=True)
        if sampling:
            batch.sample(step, on_sample)
        batch = _stop(batch, step, reasons, reports, None if sampling else on_sample)
        left = len(batch.walkers) if batch else 0
        if progress:
            progress(total - left * (steps - step), total)
        if save and batch is not None:
            save(batch, step, reports)
    if batch is not None:
        reports |= batch.reports(steps, [StopReason.NONE] * len(batch.walkers))
    return reports


def _stop(
    batch: Batch,
    step: int,
    reasons: Sequence[StopReason],
    reports: dict[int, WalkerReport],
    on_sample: Callable[[Sample], None] | None,
) -> Batch | None:
    """The batch without the walkers that have a reason to stop; None if that is all. Their last frames go to `on_sample`."""
    stopped = [w for w, reason in enumerate(reasons) if reason]
    if not stopped:
        return batch
    lost = batch.select(stopped)
    if on_sample is not None:
        lost.evaluate(everyone=True)
        lost.sample(step, on_sample)
    reports |= lost.reports(step, [reasons[w] for w in stopped])
    running = [w for w, reason in enumerate(reasons) if not reason]
    return batch.select(running) if running else None

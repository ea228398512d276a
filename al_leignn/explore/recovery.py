"""What becomes of walkers that are stopped before they have shown anything: they start again under safer conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Walker
from al_leignn.explore.md import Exploration
from al_leignn.explore.ramp import scaled

ATTEMPTS = 3
"""Each at half the temperature and half the time step of the one before."""

Run = Callable[[Sequence[Walker], ExploreConfig, int], Exploration]
"""Explores walkers under some settings; the number counts attempts, the first being 0."""


@dataclass(frozen=True)
class Recovered:
    exploration: Exploration
    """Samples of all attempts, by walker and attempt; of each walker the last report."""
    remarks: dict[int, str]
    """What happened, for walkers that had to start again, by index."""


def explore_with_recovery(run: Run, walkers: Sequence[Walker], config: ExploreConfig) -> Recovered:
    """Run walkers; those stopped before their first regular sample run again, cooler and with a smaller step."""
    found = run(walkers, config, 0)
    samples, reports, remarks = list(found.samples), {r.index: r for r in found.walkers}, dict[int, str]()
    for attempt in range(1, ATTEMPTS + 1):
        factor = 0.5**attempt
        lost = [w for w in walkers if reports[w.index].stop_reason and reports[w.index].steps_done < config.stride]
        if not lost:
            break
        safer = [replace(walker, temperature=scaled(walker.temperature, factor)) for walker in lost]
        again = run(safer, config.model_copy(update={"timestep_fs": factor * config.timestep_fs}), attempt)
        for walker, report in zip(safer, again.walkers, strict=True):
            before = reports[walker.index]
            remarks[walker.index] = (
                remarks.get(walker.index, "")
                + f"stopped after {before.steps_done} steps ({before.stop_reason}), started again at "
                + f"{walker.hottest:g} K and {factor * config.timestep_fs:g} fs; "
            )
            reports[walker.index] = report
        samples += again.samples
    samples.sort(key=lambda s: s.frame.origin.walker)
    return Recovered(
        Exploration(samples, [reports[walker.index] for walker in walkers]),
        {index: remark.removesuffix("; ") for index, remark in remarks.items()},
    )

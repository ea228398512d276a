"""Which conditions walkers explore next: all of them, or a climb that goes on when a condition is learned.

A condition is learned when, at its last visit, enough of its frames were accurate and no walker was stopped. The climb stays at
the first condition that is not learned; one walker of each structure keeps watch over every learned one below it. When the
watch finds one forgotten, it is the first that is not learned, so the climb comes back to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """What the last visit of a condition showed."""

    frames: int
    accurate: int
    stopped: int
    """Walkers that were stopped before their end."""
    once: bool = False
    """It was learned at an earlier visit."""

    def learned(self, share: float) -> bool:
        """Whether at least this share of the frames were accurate, and no walker was stopped."""
        return self.frames > 0 and self.accurate >= share * self.frames and not self.stopped

    def text(self, share: float) -> str:
        """The numbers behind `learned`, in words."""
        stops = f", {self.stopped} walker(s) stopped" if self.stopped else ""
        return f"{self.accurate} of {self.frames} frames accurate{stops}; {share:.0%} and no stop needed"


@dataclass(frozen=True)
class Plan:
    """What an iteration explores."""

    walkers: tuple[int, ...]
    """For each condition, walkers per structure."""
    why: str
    """In words; empty if everything is explored always."""
    complete: bool
    """Every condition was learned before this iteration, or none must be."""


def make_plan(labels: Sequence[str], standings: Mapping[str, Standing], *, climb: bool, walkers: int, share: float) -> Plan:
    """Decide from the last visits.

    Parameters
    ----------
    labels
        Conditions from the safest to the boldest.
    standings
        Last visits, by label; conditions never visited are missing.
    climb
        Whether to follow the policy; otherwise all conditions are explored.
    walkers
        Walkers per structure at each condition that is explored and not only watched.
    share
        As in `Standing.learned`.
    """
    everything = (walkers,) * len(labels)
    if not climb:
        return Plan(everything, "", complete=True)
    known = [label in standings and standings[label].learned(share) for label in labels]
    if all(known):
        return Plan(everything, f"all {len(labels)} conditions are learned: they are explored together", complete=True)
    front = known.index(False)
    spread = (1,) * front + (walkers,) + (0,) * (len(labels) - front - 1)
    return Plan(spread, _reason(labels[front], standings.get(labels[front]), labels[:front], share), complete=False)


def _reason(label: str, standing: Standing | None, below: Sequence[str], share: float) -> str:
    if standing is None:
        return f"on to {label}: {below[-1]} is learned" if below else f"start with {label}"
    if standing.once:
        return f"back to {label}: it is forgotten ({standing.text(share)})"
    return f"still at {label}: {standing.text(share)}"


def updated(standings: Mapping[str, Standing], visits: Mapping[str, Standing], share: float) -> dict[str, Standing]:
    """Standings after an iteration that visited some of the conditions."""
    found = dict(standings)
    for label, visit in visits.items():
        before = standings.get(label)
        once = before is not None and (before.once or before.learned(share))
        found[label] = Standing(visit.frames, visit.accurate, visit.stopped, once)
    return found

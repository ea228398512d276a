"""What figures and report draw: series made from the history, thinned so that a long campaign stays readable and small."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from al_leignn.campaign.history import History
from al_leignn.shapes import Float, Int

MOST_POINTS = 60_000
"""Points of all deviation curves together."""

LEAST_PER_CURVE = 16
MOST_PER_CURVE = 400


@dataclass(frozen=True)
class DeviationCurve:
    """Model deviation along one walker's trajectory."""

    iteration: int
    walker: int
    temperature: float
    """Target, K."""
    stopped: str
    """Why the walker was stopped; empty if it was not."""
    step: Int[np.ndarray, " points"]
    deviation: Float[np.ndarray, " points"]
    """Frame maxima, eV/Å; finite."""


@dataclass(frozen=True)
class Span:
    """One iteration on a time axis on which iterations stand side by side, and the trust levels in force there."""

    iteration: int
    start: float
    """ps."""
    end: float
    ps_per_step: float
    trust_lo: float | None
    trust_hi: float | None


@dataclass(frozen=True)
class LearningPoint:
    """Errors of one committee, by the number of labels it was trained on.

    The errors on *fresh* frames are prospective: the frames come from MD that this very committee drove. The errors on
    *test* frames are over all frames ever held back, older and easier ones included.
    """

    kind: str
    """fresh or test."""
    iteration: int
    labels: int
    frames: int
    force_mae: float | None
    """eV/Å, per component; None where it is not finite."""
    force_mae_low: float | None
    force_mae_high: float | None
    energy_mae: float | None
    """eV/atom."""


def deviation_curves(history: History) -> list[DeviationCurve]:
    """All curves, by iteration and walker, thinned with `thin`."""
    found = [
        (trace, str(report["stopped"]))
        for i in range(1, history.iterations)
        for trace, report in zip(history.traces(i), history.walkers(i), strict=True)
    ]
    limit = int(np.clip(MOST_POINTS // max(len(found), 1), LEAST_PER_CURVE, MOST_PER_CURVE))
    curves = []
    for trace, stopped in found:
        finite = np.isfinite(trace.deviation)
        step, deviation = thin(trace.step[finite].astype(int), trace.deviation[finite], limit)
        curves.append(DeviationCurve(trace.iteration, trace.walker, trace.temperature, stopped, step, deviation))
    return curves


def thin(
    x: Int[np.ndarray, " n"], y: Float[np.ndarray, " n"], limit: int
) -> tuple[Int[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """At most `limit` points, one from each of as many stretches of equal length: the highest, so that no peak is lost."""
    if len(y) <= limit:
        return x, y
    stretches = np.array_split(np.arange(len(y)), limit)
    keep = np.array([stretch[np.argmax(y[stretch])] for stretch in stretches])
    return x[keep], y[keep]


def spans(history: History) -> list[Span]:
    """Where each iteration with MD lies on the time axis."""
    found: list[Span] = []
    start = 0.0
    for i in range(1, history.iterations):
        config = history.layout.config_of(i).explore
        trust = history.before(i).get("trust", {"lo": None, "hi": None})
        ps_per_step = config.timestep_fs * 1e-3
        end = start + config.steps * ps_per_step
        found.append(Span(i, start, end, ps_per_step, trust["lo"], trust["hi"]))
        start = end
    return found


def learning_curve(history: History) -> list[LearningPoint]:
    """Errors against labels, in the order of the iterations."""
    points = []
    records = history.records()
    for record in records:
        before = records[record.iteration - 1].train_total if record.iteration > 0 else None
        for kind, errors, labels in (("fresh", record.fresh, before), ("test", record.test, record.train_total)):
            if errors is not None and labels is not None:
                values = [errors[name] for name in ("n_frames", "force_mae", "force_mae_low", "force_mae_high", "energy_mae")]
                points.append(LearningPoint(kind, record.iteration, labels, *values))
    return points


def parity(history: History, limit: int) -> tuple[int, dict[str, Any]] | None:
    """Force components of the newest committee against the labels of all fresh frames, at most `limit` of them.

    Returns the number of components there are, and reference, predicted (eV/Å) and uid of those that are shown; evenly
    picked, since which ones are shown must not depend on their errors. None before the first validation.
    """
    newest = history.last_predictions()
    if newest is None:
        return None
    _, found = newest
    reference, predicted = found["forces_ref"].ravel(), found["forces"].ravel()
    uid = np.repeat(found["uid"], 3 * found["atoms"])
    every = max(-(-len(reference) // limit), 1)
    shown = {"reference": reference[::every], "predicted": predicted[::every], "uid": uid[::every]}
    return len(reference), shown

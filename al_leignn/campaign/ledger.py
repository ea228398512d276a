"""What labels cost, have cost and will cost, in core-seconds."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from al_leignn.campaign.history import History
from al_leignn.core import Stage

GROWTH = 2.0
"""Power of the number of atoms that a label's cost grows with, until labels of several sizes tell: plane waves at these sizes."""

RECENT = 50
"""Labels of the same size that a prediction looks back on: settings and machines change."""

NEEDED = 20
"""Labels after which predictions are held to their promise."""

FACTOR = 2.0
"""A prediction is good within this factor."""

CAUTION = 0.9
"""Budgets are planned with this quantile of what labels cost, not with their median."""


class Paid(NamedTuple):
    """One label that was computed."""

    iteration: int
    atoms: int
    core_s: float
    finished: float
    """Unix time."""


def paid_labels(history: History) -> list[Paid]:
    """Every label that was computed, in the order in which they were done."""
    found = [
        Paid(i, int(m.result.get("atoms", 1)), m.times["label_cpu_s"], m.times.get("finished", 0.0))
        for i in range(history.iterations)
        for m in history.items(Stage.LABEL, i)
        if m.times.get("paid") and m.times["label_cpu_s"] > 0
    ]
    return sorted(found, key=lambda paid: paid.finished)


class _Costs:
    """Costs of the last labels of each size."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}

    def add(self, paid: Paid) -> None:
        self._recent.setdefault(paid.atoms, deque(maxlen=RECENT)).append(paid.core_s)

    def predict(self, atoms: int, quantile: float) -> float | None:
        if not self._recent:
            return None
        nearest = min(self._recent, key=lambda n: (abs(math.log(n / atoms)), n))
        costs = sorted(self._recent[nearest])
        low, part = divmod(quantile * (len(costs) - 1), 1)
        high = costs[min(int(low) + 1, len(costs) - 1)]
        return float((costs[int(low)] + part * (high - costs[int(low)])) * (atoms / nearest) ** GROWTH)


def predict(before: Sequence[Paid], atoms: int, quantile: float = 0.5) -> float | None:
    """Core-seconds of a label of so many atoms, from labels that were paid for; None without any.

    Labels of the same size count where there are some; else the nearest size, scaled.
    """
    known = _Costs()
    for paid in before:
        known.add(paid)
    return known.predict(atoms, quantile)


def ledger(history: History) -> dict[str, Any]:
    """Spent and predicted core-seconds of the campaign; JSON-safe.

    Returns
    -------
    dict
        spent_core_s; labels (paid for); next_label_core_s (predicted, of the last label's size); predicted_within_2 (share of
        the labels after the first 20 whose cost was foretold within a factor of 2, each from those before it); iterations
        (spent_core_s of each); aimd_core_s (what DFT at every MD step so far would have cost, each step a label) and saving
        (that over spent). None where nothing is known yet.
    """
    paid = paid_labels(history)
    spent = sum(p.core_s for p in paid)
    good = []
    known = _Costs()
    for n, label in enumerate(paid):
        foretold = known.predict(label.atoms, 0.5) if n >= NEEDED else None
        if foretold is not None:
            good.append(1 / FACTOR <= label.core_s / foretold <= FACTOR)
        known.add(label)
    steps = sum(history.record(i).steps for i in range(history.iterations))
    typical = predict(paid, paid[-1].atoms) if paid else None
    aimd = None if typical is None else typical * steps
    return {
        "spent_core_s": spent,
        "labels": len(paid),
        "next_label_core_s": typical,
        "predicted_within_2": float(np.mean(good)) if good else None,
        "iterations": [sum(p.core_s for p in paid if p.iteration == i) for i in range(history.iterations)],
        "aimd_core_s": aimd,
        "saving": None if aimd is None or spent == 0 else aimd / spent,
    }


def affordable(history: History, core_hours: float, atoms: int, guess_s: float) -> int:
    """Labels of so many atoms that the rest of a budget pays for.

    Parameters
    ----------
    guess_s
        Core-seconds of a label before any has been paid for.
    """
    paid = paid_labels(history)
    left = 3600 * core_hours - sum(p.core_s for p in paid)
    each = predict(paid, atoms, CAUTION) or guess_s
    return max(0, int(left // max(each, 1e-9)))

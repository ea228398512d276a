"""What labels cost, have cost and will cost, in core-seconds."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from al_leignn.campaign.history import CAUTION, CAUTIOUS, History, label_needs
from al_leignn.core import Allowance, Stage

GROWTH = 2.0
"""Power of the number of atoms that a label's cost grows with, until labels of several sizes tell: plane waves at these sizes."""

RECENT = 50
"""Labels of the same size that a prediction looks back on: settings and machines change."""

NEEDED = 20
"""Labels after which predictions are held to their promise."""

FACTOR = 2.0
"""A prediction is good within this factor."""


BRIEF_S = 0.1
"""Seconds; how many cores quicker labels keep busy is not known."""

FEW = 3
"""Fewer labels than these say little of what the next one will cost."""


class Paid(NamedTuple):
    """One label that was computed."""

    iteration: int
    atoms: int
    core_s: float
    finished: float
    """Unix time."""
    cores: float = 1.0
    """That it kept busy on average."""
    needs_s: float = 0.0
    """What it would have cost, where it was ended for the budget."""


def paid_labels(history: History) -> list[Paid]:
    """Every label that was computed, in the order in which they were done."""
    found = [
        Paid(
            i,
            int(m.result.get("atoms", 1)),
            m.times["label_cpu_s"],
            m.times.get("finished", 0.0),
            m.times["label_cpu_s"] / max(m.times["label_wall_s"], BRIEF_S),
            label_needs(m),
        )
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
        self._recent.setdefault(paid.atoms, deque(maxlen=RECENT)).append(max(paid.core_s, paid.needs_s))

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
    each = CAUTION * (predict(paid, atoms, CAUTIOUS) or guess_s)
    return max(0, int(_left(core_hours, paid) // max(each, 1e-9)))


def allowance(history: History, core_hours: float, iteration: int, atoms: int) -> Allowance | None:
    """What one more label of so many atoms may cost; None if that is too little for it.

    What is left of the budget is shared equally by all labels of the iteration that are not done. Shares only grow while labels
    stay within theirs, so that all labels under way together never spend more than is left.
    """
    paid = paid_labels(history)
    asked = int(history.result(Stage.SELECT, iteration).get("labels", 1))
    share = _left(core_hours, paid) / max(1, asked - len(history.items(Stage.LABEL, iteration)))
    least = predict(paid, atoms) if len(paid) >= FEW else None
    if share <= 0 or share < CAUTION * (least or 0.0):
        return None
    return Allowance(share, CAUTION * max([1.0, *(p.cores for p in paid)]))


def _left(core_hours: float, paid: Sequence[Paid]) -> float:
    """Core-seconds."""
    return 3600 * core_hours - sum(p.core_s for p in paid)

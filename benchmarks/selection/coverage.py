"""Nominal against empirical coverage on real labels: exchangeable ones, and ones of another kind.

    python benchmarks/selection/coverage.py --out FILE [--systems NAME ...]

A committee is fitted to a few frames. Other frames of the same kind are divided at random, 300 times, into those that calibrate
and those that check; frames of another kind (hotter, other compositions, later in the trajectory) check too. Results are
appended to FILE, one JSON object a line.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fits import fit, predict
from pools import read

from al_leignn.core import CommitteePrediction, LabelledFrame
from al_leignn.quantities import quantities
from al_leignn.train.baseline import fit_e0s

TRAIN, CALIBRATE, CHECK = 30, 40, 60
SPLITS = 300
OTHER = 60
NEIGHBOURS_APART = 3
"""Frames of a trajectory are thinned so that each stands for itself."""

SYSTEMS = {
    "3bpa": (("3bpa/train_300K",), ("3bpa/extra_600K",), "300 K", "600 K"),
    "nbmotaw": (("nbmotaw/train_elements",), ("nbmotaw/test_binaries",), "elements", "binaries"),
    "lips": (("lips/train",), (), "first half", "last quarter"),
}


def frames_of(name: str) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Frames of one kind, and of the other."""
    same, other, *_ = SYSTEMS[name]
    first = [item for file in same for item in read(file, 1)]
    if not other:
        return first[: len(first) // 2 : NEIGHBOURS_APART], first[3 * len(first) // 4 :]
    return first, [item for file in other for item in read(file, 1)]


def measure(name: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    same, other = frames_of(name)
    same = [same[i] for i in rng.permutation(len(same))[: TRAIN + CALIBRATE + CHECK]]
    other = [other[i] for i in rng.permutation(len(other))[:OTHER]]
    train, rest = same[:TRAIN], same[TRAIN:]
    check_size = min(CHECK, len(rest) - CALIBRATE)
    with tempfile.TemporaryDirectory() as folder:
        committee = fit(train, fit_e0s(same), 0, Path(folder) / "members")
    on_rest, on_other = predict(committee, [f.frame for f in rest]), predict(committee, [f.frame for f in other])
    shares: dict[str, list[float]] = {}
    elsewhere: dict[str, list[float]] = {}
    alarms: dict[str, list[bool]] = {}

    def some(indices: Sequence[int]) -> tuple[list[CommitteePrediction], list[LabelledFrame]]:
        return [on_rest[i] for i in indices], [rest[i] for i in indices]

    away = quantities(on_other, other)
    for _ in range(SPLITS):
        order = rng.permutation(len(rest)).tolist()
        made = quantities(*some(order[:CALIBRATE]))
        for key, quantity in quantities(*some(order[CALIBRATE : CALIBRATE + check_size])).items():
            calibration = made[key].calibrate()
            held = quantity.coverage(calibration)
            shares.setdefault(key, []).append(held.share)
            alarms.setdefault(key, []).append(held.drift)
            if key in away:
                elsewhere.setdefault(key, []).append(away[key].coverage(calibration).share)
    return [
        {
            "system": name,
            "quantity": key,
            "share": float(np.mean(shares[key])),
            "low": float(np.quantile(shares[key], 0.025)),
            "high": float(np.quantile(shares[key], 0.975)),
            "alarms": float(np.mean(alarms[key])),
            "elsewhere": float(np.mean(elsewhere[key])) if key in elsewhere else None,
            "calibrate": CALIBRATE,
            "check": check_size,
        }
        for key in shares
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.systems:
        found = measure(name)
        with arguments.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        for row in found:
            print(row, flush=True)


if __name__ == "__main__":
    main()

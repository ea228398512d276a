"""Nominal against empirical coverage on real labels: exchangeable ones, and ones of another kind.

    python benchmarks/selection/coverage.py --out FILE [--systems NAME ...]

A committee is fitted to a few frames. Other frames of the same kind are divided at random, 300 times, into those that calibrate
and those that check; frames of another kind (hotter, other compositions, later in the trajectory) check too. Results are
appended to FILE, one JSON object a line.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fits import fit, predict
from pools import read

from al_leignn.core import LabelledFrame
from al_leignn.quantities import Quantity, quantities
from al_leignn.train.baseline import fit_e0s

TRAIN, CHECK = 30, 60
SPLITS = 300
OTHER = 60
NEIGHBOURS_APART = 3
"""Frames of a trajectory are thinned so that each stands for itself."""


@dataclass(frozen=True)
class Kinds:
    same: str
    other: str = ""
    """Without a file: the last quarter of the trajectory, `same` being the first half."""
    calibrate: tuple[int, ...] = (40,)
    """Numbers of frames that calibrate, one after the other."""


SYSTEMS = {
    "3bpa": Kinds("3bpa/train_300K", "3bpa/extra_600K"),
    # Each frame is of one element: only a quarter of those that calibrate tell of it.
    "nbmotaw": Kinds("nbmotaw/train_elements", "nbmotaw/test_binaries", (40, 160)),
    "lips": Kinds("lips/train"),
}


def frames_of(kinds: Kinds) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Frames of one kind, and of the other."""
    first = read(kinds.same, 1)
    if not kinds.other:
        return first[: len(first) // 2 : NEIGHBOURS_APART], first[3 * len(first) // 4 :]
    return first, read(kinds.other, 1)


def measure(name: str) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    same, other = frames_of(SYSTEMS[name])
    same = [same[i] for i in rng.permutation(len(same))[: TRAIN + max(SYSTEMS[name].calibrate) + CHECK]]
    other = [other[i] for i in rng.permutation(len(other))[:OTHER]]
    train, rest = same[:TRAIN], same[TRAIN:]
    with tempfile.TemporaryDirectory() as folder:
        committee = fit(train, fit_e0s(same), 0, Path(folder) / "members")
    seen = quantities(predict(committee, [item.frame for item in rest]), rest)
    away = quantities(predict(committee, [item.frame for item in other]), other)
    for n in SYSTEMS[name].calibrate:
        orders = [rng.permutation(len(rest)) for _ in range(SPLITS)]
        for key, quantity in seen.items():
            yield {"system": name, "quantity": key} | divided(quantity, away[key], orders, n)


def divided(seen: Quantity, away: Quantity, orders: list[np.ndarray], n: int) -> dict[str, Any]:
    """Shares that the bound from n frames covers, over the divisions given by `orders`."""
    found = defaultdict(list)
    for order in orders:
        calibration = seen.of(np.isin(seen.frame, order[:n])).calibrate()
        held = seen.of(np.isin(seen.frame, order[n : n + CHECK])).coverage(calibration)
        found["share"].append(held.share)
        found["alarms"].append(held.drift)
        found["from"].append(calibration.n)
        found["elsewhere"].append(away.coverage(calibration).share)
    return {name: float(np.mean(values)) for name, values in found.items()} | {
        "low": float(np.quantile(found["share"], 0.025)),
        "high": float(np.quantile(found["share"], 0.975)),
        "calibrate": n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.systems:
        found = list(measure(name))
        with arguments.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        print(f"{name}: {len(found)} rows", flush=True)


if __name__ == "__main__":
    main()

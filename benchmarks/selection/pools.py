"""Selection from labelled pools: error on a fixed test set against the number of labels, for four rules.

    python benchmarks/selection/pools.py --out FILE [--systems NAME ...] [--rules NAME ...] [--seeds N] [--minutes M]

Reads the sets under AL_LEIGNN_DATA (default: ../shared/data). Each seed draws a pool, frames held back for calibration and the
first labels; the rules start from the same committee. Results are appended to FILE, one JSON object a line, as they come;
what is there already is not computed again. `tables.py` makes the tables.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from fits import calibration, fit, maxima, predict, test_errors
from rules import RULES, WINDOW, Judged, choose
from series import complete, parser

from al_leignn.core import Frame, LabelledFrame, Origin
from al_leignn.model.committee import Committee
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.screening import set_aside
from al_leignn.userdata import read_parts, read_user_data

DATA = Path(os.environ.get("AL_LEIGNN_DATA", "../shared/data"))

POOL, HELD_BACK, TEST = 240, 20, 80
FIRST, BATCH, ROUNDS = 10, 20, 1
TARGET = 0.1
"""Wanted force MAE, eV/Å."""


@dataclass(frozen=True)
class System:
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    """Other files; without any, the last quarter of the trajectory."""
    spacing: int = 1000
    """MD steps between neighbouring frames; large where they are independent."""


SYSTEMS = {
    "3bpa": System(("3bpa/train_300K",), ("3bpa/test_300K",)),
    "nbmotaw": System(("nbmotaw/train_elements", "nbmotaw/train_binaries"), ("nbmotaw/test_elements", "nbmotaw/test_binaries")),
    "lips": System(("lips/train",), spacing=31),
    "lips20": System(tuple(f"lips20/{name}" for name in ("Li2S", "Li7P3S11", "Li7PS6", "P2S5", "beta-Li3PS4"))),
    "water_pbe0ts": System(("water_pbe0ts/train",), spacing=20),
}


def read(name: str, spacing: int) -> list[LabelledFrame]:
    """Usable frames in the order of time, with MD steps as far apart as they were."""
    path = DATA / f"{name}.extxyz.xz"
    frames = read_user_data(path, "as published")
    [(_, images)] = read_parts(path)
    places = [int(atoms.info.get("order", n)) for n, atoms in enumerate(images)]
    placed = [
        replace(item, frame=Frame(item.frame.uid, item.frame.atoms, Origin(name, step=place * spacing)))
        for item, place in zip(frames, places, strict=True)
    ]
    return sorted(set_aside(placed)[0], key=lambda item: item.frame.origin.step)


@dataclass(frozen=True)
class Start:
    """What all rules of one seed have in common."""

    folder: tempfile.TemporaryDirectory[str]
    pool: list[LabelledFrame]
    """The first labels, then those to choose from."""
    held_back: list[LabelledFrame]
    test: list[LabelledFrame]
    e0s: dict[int, float]
    judged: Judged
    errors: dict[str, float]


@cache
def divide(system: System) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """All frames to draw pools from, and the fixed test set (evenly picked)."""
    files = [read(name, system.spacing) for name in system.train]
    if system.test:
        test = [item for name in system.test for item in read(name, system.spacing)]
        train = [item for file in files for item in file]
    else:
        train = [item for file in files for item in file[: 3 * len(file) // 4]]
        test = [item for file in files for item in file[3 * len(file) // 4 :]]
    uids = {item.frame.uid for item in test}
    return [item for item in train if item.frame.uid not in uids], test[:: max(len(test) // TEST, 1)][:TEST]


@cache
def start(name: str, seed: int) -> Start:
    every, test = divide(SYSTEMS[name])
    rng = np.random.default_rng([seed, *name.encode()])
    drawn = [every[i] for i in rng.permutation(len(every))[: POOL + HELD_BACK]]
    held_back, pool = drawn[:HELD_BACK], drawn[HELD_BACK:]
    folder, e0s = tempfile.TemporaryDirectory(), fit_e0s(every)
    committee = fit(pool[:FIRST], e0s, seed, Path(folder.name) / "first")
    judged = judge(committee, pool[FIRST:], pool[:FIRST], held_back)
    return Start(folder, pool, held_back, test, e0s, judged, test_errors(committee, test))


def curve(name: str, rule: str, seed: int) -> Iterator[dict[str, Any]]:
    """Points of one learning curve."""
    began = start(name, seed)
    folder, judged = Path(began.folder.name), began.judged
    window = tuple(np.quantile(judged.deviations, WINDOW))
    known, left, before = began.pool[:FIRST], began.pool[FIRST:], folder / "first"
    row = {"system": name, "seed": seed, "rule": rule}
    yield row | {"round": 0, "labels": FIRST, "atoms": _atoms(known)} | began.errors
    for n in range(1, ROUNDS + 1):
        taken = choose(rule, judged, BATCH, np.random.default_rng([seed, n]), target=TARGET, window=window)
        known = known + [left[i] for i in taken]
        left = [item for i, item in enumerate(left) if i not in set(taken)]
        into = folder / f"{rule}-{n}"
        committee = fit(known, began.e0s, seed, into, before)
        before = into
        yield row | {"round": n, "labels": len(known), "atoms": _atoms(known)} | test_errors(committee, began.test)
        if n < ROUNDS:
            judged = judge(committee, left, known, began.held_back)


def judge(committee: Committee, left: list[LabelledFrame], known: list[LabelledFrame], held_back: list[LabelledFrame]) -> Judged:
    frames = [item.frame for item in left]
    deviations = maxima(predict(committee, frames))
    return Judged(frames, deviations, [item.frame for item in known], calibration(committee, held_back))


def _atoms(frames: list[LabelledFrame]) -> int:
    return sum(len(item.frame.atoms) for item in frames)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    options.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    arguments = options.parse_args()
    jobs = itertools.product(range(arguments.seeds), arguments.systems, arguments.rules)
    complete(arguments, ("system", "rule", "seed"), {(name, rule, s): partial(curve, name, rule, s) for s, name, rule in jobs})


if __name__ == "__main__":
    main()

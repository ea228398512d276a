"""Selection in the closed loop: error on frames of the oracle's own, hotter MD against the number of labels.

    python benchmarks/selection/loops.py --out FILE [--oracles NAME ...] [--rules NAME ...] [--seeds N] [--minutes M]

The first committee is trained on the oracle's MD at one temperature. Each round it drives MD at two higher ones, and a rule
chooses frames of that MD to label. Errors are on MD that the oracle itself drove at those two temperatures. EMT (a
copper-gold crystal) and GFN1-xTB (ethanol; needs `pip install tblite`) are exact and cheap. Every label counts, those held
back for calibration and those whose SCF fails too. Results are appended to FILE, one JSON object a line, as they come.
"""

import importlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from fits import calibration, fit, maxima, predict, test_errors
from rules import WINDOW, Judged, choose
from series import complete, parser

from al_leignn.calibration import Calibration, trust_levels
from al_leignn.config import ExploreConfig, SelectConfig
from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.explore.md import Walker, explore
from al_leignn.model.committee import Committee
from al_leignn.train.baseline import fit_e0s

FIRST, HELD_BACK = 10, 4
BATCH, FRESH = 10, 2
"""Labels per round; the own rule holds the fresh ones back for calibration, the others train on all."""
ROUNDS = 3
TEST = 40
STEPS, STRIDE = 1000, 20
"""MD steps of each of the four walkers in a round; frames are looked at every STRIDE."""
RULES = ("own", "own, none held back", "random", "dp-gen")
"""The second chooses like the first and trains on all its labels, as the others do: what choosing alone gains."""


@dataclass(frozen=True)
class Oracle:
    atoms: Atoms
    calculator: Callable[[], Calculator]
    trained: float
    """K."""
    beyond: tuple[float, float]
    """K."""
    target: float
    """Wanted force MAE, eV/Å: what the own rule derives its trust levels from."""
    timestep_fs: float


@dataclass(frozen=True)
class Start:
    """What all rules of one seed have in common."""

    folder: tempfile.TemporaryDirectory[str]
    train: list[LabelledFrame]
    held_back: list[LabelledFrame]
    e0s: dict[int, float]
    committee: Committee
    steps: int
    pool: list[Frame]


def _alloy() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.82, cubic=True) * (2, 2, 1)
    atoms.symbols[::2] = "Au"
    return atoms


def _xtb() -> Calculator:
    return importlib.import_module("tblite.ase").TBLite(method="GFN1-xTB", verbosity=0)


def _emt() -> Calculator:
    return importlib.import_module("ase.calculators.emt").EMT()


ORACLES = {
    "EMT CuAu": Oracle(_alloy(), _emt, 300.0, (900.0, 1500.0), 0.05, 4.0),
    "GFN1 ethanol": Oracle(molecule("CH3CH2OH"), _xtb, 300.0, (600.0, 1000.0), 0.10, 0.5),
}


def label(calculator: Calculator, frames: Iterable[Frame]) -> list[LabelledFrame]:
    """Labels of the frames whose SCF converges."""
    found = []
    for frame in frames:
        atoms = frame.atoms.copy()
        atoms.calc = calculator
        with suppress(CalculationFailed):
            found.append(LabelledFrame(frame, Labels(float(atoms.get_potential_energy()), atoms.get_forces()), "oracle"))
    return found


@cache
def own_md(name: str, temperature: float, frames: int, seed: int) -> list[LabelledFrame]:
    """Frames of MD that the oracle drives, 100 fs apart after 0.5 ps."""
    oracle = ORACLES[name]
    rng = np.random.default_rng(seed)
    calculator = oracle.calculator()
    atoms = oracle.atoms.copy()
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    md = Langevin(atoms, oracle.timestep_fs * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=rng, fixcm=False)
    every = round(100 / oracle.timestep_fs)
    md.run(5 * every)
    found = []
    for n in range(frames):
        md.run(every)
        origin = Origin("oracle", walker=n // 4, step=n * every, temperature=temperature)
        found.append(Frame.of(atoms, origin))
    return label(calculator, found)


@cache
def start(name: str, seed: int) -> Start:
    """First labels, first committee, and the MD that it drives."""
    labelled = own_md(name, ORACLES[name].trained, FIRST + HELD_BACK, seed)
    train, held_back = labelled[:FIRST], labelled[FIRST:]
    e0s = fit_e0s(train)
    folder = tempfile.TemporaryDirectory()
    committee = fit(train, e0s, seed, Path(folder.name) / "first")
    steps, pool = walk(name, committee, 1, calibration(committee, held_back), seed)
    return Start(folder, train, held_back, e0s, committee, steps, pool)


def rounds(name: str, rule: str, seed: int) -> Iterator[dict[str, Any]]:
    """Labels and errors, round by round."""
    oracle, began = ORACLES[name], start(name, seed)
    calculator = oracle.calculator()
    train, held_back, committee, before = began.train, began.held_back, began.committee, Path(began.folder.name) / "first"
    tests = {f"{t:g} K": own_md(name, t, TEST, 1000 + n) for n, t in enumerate(oracle.beyond)}
    row: dict[str, Any] = {"oracle": name, "rule": rule, "seed": seed}
    steps, pool = began.steps, began.pool
    labels = len(train) + len(held_back)
    window = tuple(np.quantile(maxima(predict(committee, pool)), WINDOW))
    for n in range(ROUNDS + 1):
        found = {t: test_errors(committee, frames)["force_mae"] for t, frames in tests.items()}
        last = n == ROUNDS
        row |= {"round": n, "labels": labels, "force_mae": found, "steps": 0 if last else steps, "pool": 0 if last else len(pool)}
        yield dict(row)
        if last:
            return
        fixed = calibration(committee, held_back)
        judged = Judged(pool, maxima(predict(committee, pool)), [item.frame for item in train], fixed)
        rng = np.random.default_rng([seed, n])
        k = BATCH - FRESH if rule == "own" else BATCH
        taken = choose("own" if rule.startswith("own") else rule, judged, k, rng, target=oracle.target, window=window)
        train = train + label(calculator, [pool[i] for i in taken])
        labels += len(taken)
        if rule == "own":
            rest = rng.permutation([i for i in range(len(pool)) if i not in set(taken)])[:FRESH]
            held_back = held_back + label(calculator, [pool[int(i)] for i in rest])
            labels += len(rest)
        into = Path(began.folder.name) / f"{rule}-{n + 1}"
        committee = fit(train, began.e0s, seed, into, before)
        before = into
        if n + 1 < ROUNDS:
            steps, pool = walk(name, committee, n + 2, calibration(committee, held_back), seed)


def walk(name: str, committee: Committee, iteration: int, fixed: Calibration, seed: int) -> tuple[int, list[Frame]]:
    """MD of two walkers at each of the higher temperatures: steps done, frames."""
    oracle = ORACLES[name]
    _, hi = trust_levels(fixed, SelectConfig(), oracle.target)
    config = ExploreConfig(temperatures=list(oracle.beyond), steps=STEPS, stride=STRIDE, timestep_fs=oracle.timestep_fs)
    walkers = [Walker(n, oracle.atoms, t, 0.0) for n, t in enumerate([*oracle.beyond, *oracle.beyond])]
    found = explore(committee, walkers, config, iteration=iteration, trust_hi=hi, seed=np.random.SeedSequence([seed, iteration]))
    unique = {sample.frame.uid: sample.frame for sample in found.samples}
    return sum(w.steps_done for w in found.walkers), list(unique.values())


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--oracles", nargs="+", default=list(ORACLES), choices=list(ORACLES))
    options.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    arguments = options.parse_args()
    jobs = itertools.product(range(arguments.seeds), arguments.oracles, arguments.rules)
    complete(arguments, ("oracle", "rule", "seed"), {(name, rule, s): partial(rounds, name, rule, s) for s, name, rule in jobs})


if __name__ == "__main__":
    main()

"""Selection in the closed loop: labels until the target is met on frames of the oracle's own, hotter MD.

    python benchmarks/selection/loops.py --out FILE [--oracles NAME ...] [--rules NAME ...] [--seeds N] [--minutes M]

The first committee is trained on the oracle's MD at one temperature. Each round it drives MD at two higher ones, and a rule
chooses frames of that MD to label. Errors are on MD that the oracle itself drove at those two temperatures. EMT (a
copper-gold crystal) and GFN1-xTB (ethanol; needs `pip install tblite`) are exact and cheap. Every label counts, those held
back for calibration too. Results are appended to FILE, one JSON object a line, as they come.
"""

import importlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from fits import calibration, fit, maxima, predict, test_errors
from rules import WINDOW, Judged, choose
from series import complete, parser

from al_leignn.calibration import trust_levels
from al_leignn.config import ExploreConfig, SelectConfig
from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.explore.md import Walker, explore
from al_leignn.train.baseline import fit_e0s

FIRST, HELD_BACK = 10, 4
BATCH, FRESH = 10, 2
"""Labels per round; the own rule holds the fresh ones back for calibration, the others train on all."""
ROUNDS = 6
TEST = 40
RULES = ("own", "random", "dp-gen")


@dataclass(frozen=True)
class Oracle:
    atoms: Atoms
    calculator: Callable[[], Calculator]
    trained: float
    """K."""
    beyond: tuple[float, float]
    """K."""
    target: float
    """Force MAE, eV/Å."""
    timestep_fs: float


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


def label(calculator: Calculator, frame: Frame) -> LabelledFrame:
    atoms = frame.atoms.copy()
    atoms.calc = calculator
    return LabelledFrame(frame, Labels(float(atoms.get_potential_energy()), atoms.get_forces()), "oracle")


def own_md(oracle: Oracle, temperature: float, frames: int, seed: int, kind: str) -> list[LabelledFrame]:
    """Frames of MD that the oracle drives, 100 fs apart after 0.5 ps."""
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
        found.append(label(calculator, Frame.of(atoms, Origin(kind, walker=n // 4, step=n * every, temperature=temperature))))
    return found


def rounds(name: str, rule: str, seed: int) -> Iterator[dict[str, Any]]:
    """Labels and errors, round by round, until the target is met at both temperatures."""
    oracle = ORACLES[name]
    calculator = oracle.calculator()
    tests = {t: own_md(oracle, t, TEST, 1000 + n, "test") for n, t in enumerate(oracle.beyond)}
    first = own_md(oracle, oracle.trained, FIRST + HELD_BACK, seed, "data")
    train, held_back = first[:FIRST], first[FIRST:]
    e0s = fit_e0s(train)
    labels, window = len(first), (0.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        before = None
        for n in range(ROUNDS + 1):
            into = Path(folder) / str(n)
            committee = fit(train, e0s, seed, into, before)
            before = into
            errors = {f"{t:g} K": test_errors(committee, tests[t])["force_mae"] for t in oracle.beyond}
            met = max(errors.values()) <= oracle.target
            row = {"oracle": name, "rule": rule, "seed": seed, "round": n, "labels": labels, "met": met, "force_mae": errors}
            if met or n == ROUNDS:
                yield row | {"steps": 0, "pool": 0}
                return
            fixed = calibration(committee, held_back)
            _, hi = trust_levels(fixed, SelectConfig(), oracle.target)
            steps, pool = walk(oracle, committee, n + 1, hi, seed)
            yield row | {"steps": steps, "pool": len(pool)}
            deviations = maxima(predict(committee, pool))
            if n == 0:
                low, high = np.quantile(deviations, WINDOW)
                window = (float(low), float(high))
            rng = np.random.default_rng([seed, n])
            k = BATCH - FRESH if rule == "own" else BATCH
            judged = Judged(pool, deviations, [item.frame for item in train], fixed)
            taken = choose(rule, judged, k, rng, target=oracle.target, window=window)
            train = train + [label(calculator, pool[i]) for i in taken]
            labels += len(taken)
            if rule == "own":
                rest = rng.permutation([i for i in range(len(pool)) if i not in set(taken)])[:FRESH]
                held_back = held_back + [label(calculator, pool[int(i)]) for i in rest]
                labels += len(rest)


def walk(oracle: Oracle, committee: Any, iteration: int, hi: float, seed: int) -> tuple[int, list[Frame]]:
    """MD of two walkers at each of the higher temperatures."""
    config = ExploreConfig(temperatures=list(oracle.beyond), steps=1000, stride=20, timestep_fs=oracle.timestep_fs, driver="mean")
    walkers = [Walker(n, oracle.atoms, t, 0.0) for n, t in enumerate([*oracle.beyond, *oracle.beyond])]
    found = explore(committee, walkers, config, iteration=iteration, trust_hi=hi, seed=np.random.SeedSequence([seed, iteration]))
    uids: set[str] = set()
    frames = [s.frame for s in found.samples if not (s.frame.uid in uids or uids.add(s.frame.uid))]  # type: ignore[func-returns-value]
    return sum(w.steps_done for w in found.walkers), frames


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--oracles", nargs="+", default=list(ORACLES), choices=list(ORACLES))
    options.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    arguments = options.parse_args()
    jobs = itertools.product(range(arguments.seeds), arguments.oracles, arguments.rules)
    complete(arguments, ("oracle", "rule", "seed"), {(name, rule, s): partial(rounds, name, rule, s) for s, name, rule in jobs})


if __name__ == "__main__":
    main()

"""One MD step as a user gets it: an ASE calculator call after every atom has moved 1e-3 Å, neighbour list included.

Rattled diamond silicon, float32, cutoff 5 Å, random weights (speed does not depend on them). Every number is the better of
two processes; the rows of a table take turns, so that a busy machine is equally busy for all of them.

    python benchmarks/md_step.py [--threads 1 2] [--atoms 64 512 4096] [--growth] [--peers]

--growth adds 32,768 atoms: time per atom against 512 atoms, and peak memory per atom.
--peers adds NEP4 (calorine), PaiNN (schnetpack), MACE (mace-torch) and CHGNet, installed from PyPI into an environment in
the user's cache folder.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from peers import CUTOFF, MOST_ATOMS, PEERS, peers_python

STEPS = 10
"""Steps that are timed: their median, but the mean where steps differ by design."""

ENOUGH_S = 20.0
"""Slow models are stopped here, after three steps at least."""


def leignn(members: int = 1, **options: Any) -> Any:
    from al_leignn.config import ModelConfig
    from al_leignn.model.committee import Committee
    from al_leignn.model.leignn import LEIGNN

    config = ModelConfig(cutoff=CUTOFF)
    models = [LEIGNN(config, (14,), e0s={14: 0.0}, mean_neighbours=28.0, seed=seed).eval() for seed in range(members)]
    return Committee(models, engine=options.pop("engine", "auto")).calculator(**options)


OURS: dict[str, Callable[[], Any]] = {
    "LEIGNN": leignn,
    "LEIGNN, network itself (eager)": lambda: leignn(engine="eager"),
    "committee of 4, every step": lambda: leignn(4),
    "committee of 4, every 10 steps": lambda: leignn(4, driver=0, deviation_every=10),
}
REFERENCES = ("NEP4", "MACE 64x0e")
"""Peers that times are compared with."""


def silicon(n_atoms: int) -> Atoms:
    atoms: Atoms = bulk("Si", cubic=True) * ((round((n_atoms / 8) ** (1 / 3)),) * 3)
    assert len(atoms) == n_atoms, "give 8 n^3 atoms"
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def measure(name: str, n_atoms: int, threads: int) -> dict[str, float]:
    """Milliseconds of a step and of the first one (s), and growth of the peak memory meanwhile (kB per atom)."""
    if name != "NEP4":
        import torch

        torch.set_num_threads(threads)
    atoms, rng = silicon(n_atoms), np.random.default_rng(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    atoms.calc = (OURS | PEERS)[name]()
    atoms.get_forces()
    first = time.perf_counter() - start
    times = []
    for _ in range(STEPS):
        atoms.positions += rng.normal(scale=1e-3 / 3**0.5, size=atoms.positions.shape)
        start = time.perf_counter()
        atoms.get_potential_energy(), atoms.get_forces()
        times.append(time.perf_counter() - start)
        if len(times) >= 3 and sum(times) > ENOUGH_S:
            break
    middle = statistics.fmean(times) if "every 10" in name else statistics.median(times)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"ms": 1e3 * middle, "first_s": first, "kB_per_atom": memory / n_atoms}


def measured(python: str, name: str, n_atoms: int, threads: int) -> dict[str, float]:
    command = [python, __file__, "--measure", name, "--atoms", str(n_atoms), "--threads", str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # MACE's e3nn reads constants of its own that need it
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(n_atoms: int, threads: int, names: list[str], pythons: dict[str, str]) -> None:
    best: dict[str, float] = {}
    for _ in range(2):
        for name in names:
            best[name] = min(best.get(name, np.inf), measured(pythons[name], name, n_atoms, threads)["ms"])
    print(f"\n{n_atoms} atoms, {threads} thread(s)\n{'':<34}{'ms':>9}" + "".join(f"{peer:>16}" for peer in REFERENCES))
    for name in names:
        ratios = "".join(f"{f'{best[p] / best[name]:.2f} x' if p in best else '':>16}" for p in REFERENCES)
        print(f"{name:<34}{best[name]:9.2f}{ratios}", flush=True)


def growth(threads: int) -> None:
    small, large = 512, 32768
    runs = {n: [measured(sys.executable, "LEIGNN", n, threads) for _ in range(2)] for n in (small, large)}
    microseconds = {n: 1e3 * min(run["ms"] for run in runs[n]) / n for n in runs}
    print(f"\ntime per atom, {threads} thread(s): " + ", ".join(f"{n} atoms {t:.1f} µs" for n, t in microseconds.items()))
    print(f"growth: {microseconds[large] / microseconds[small]:.2f} x")
    print(f"peak memory at {large} atoms: {min(run['kB_per_atom'] for run in runs[large]):.1f} kB per atom")
    print(f"first step at {small} atoms: {min(run['first_s'] for run in runs[small]):.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.atoms[0], given.threads[0])))
        sys.exit()
    pythons = dict.fromkeys(OURS, sys.executable) | (dict.fromkeys(PEERS, peers_python()) if given.peers else {})
    for threads in given.threads:
        for n_atoms in given.atoms:
            table(n_atoms, threads, [name for name in pythons if n_atoms <= MOST_ATOMS.get(name, n_atoms)], pythons)
    if given.growth:
        growth(given.threads[0])

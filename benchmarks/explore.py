"""Walkers in one batch against one ASE process per walker: the same committee, the same steps, deviations every 10 of them.

A committee of four with random weights on rattled silicon, float32; one member drives, all look at every tenth step. Ours
writes samples and checkpoints and watches; ASE's Langevin dynamics only moves atoms. Both get `--cores` processes of one
thread: ours shares the walkers among them, ASE takes walkers one after another. Steps per second are those of all walkers
together. CPU seconds count what the machine's other work does not disturb. How much of our time is not the model is found in a
run of its own, since looking at the clock twice a step takes time, too.

    python benchmarks/explore.py [--cores 2] [--repeat 2] [--memory]

--memory runs 1e5 steps of eight atoms and prints the memory at each tenth of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

CASES = ((16, 8), (16, 64))
"""Walkers and atoms of each."""
STEPS = {8: 1000, 64: 300}
MEMORY_STEPS = 100_000


def committee() -> Any:
    import torch

    from al_leignn.config import ModelConfig
    from al_leignn.model.committee import Committee
    from al_leignn.model.leignn import LEIGNN

    torch.set_num_threads(1)
    models = [LEIGNN(ModelConfig(), (14,), e0s={14: 0.0}, mean_neighbours=28.0, seed=seed).eval() for seed in range(4)]
    return Committee(models)


def silicon(n_atoms: int) -> Atoms:
    atoms: Atoms = bulk("Si", cubic=True) * ((round((n_atoms / 8) ** (1 / 3)),) * 3)
    atoms.positions += np.random.default_rng(0).normal(scale=0.02, size=atoms.positions.shape)
    return atoms


class Timed:
    """A committee that adds up the time spent in it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def evaluate(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        found = self.inner.evaluate(*arguments, **options)
        self.seconds += time.perf_counter() - start
        return found


def settings(steps: int) -> Any:
    from al_leignn.config import ExploreConfig

    return ExploreConfig(steps=steps, stride=10, timestep_fs=0.5, temperatures=[100.0])


def ours(walkers: int, n_atoms: int, steps: int) -> dict[str, float]:
    from al_leignn.explore.md import Walker, explore

    potential = committee()
    batch = [Walker(n, silicon(n_atoms), 100.0) for n in range(walkers)]
    options: dict[str, Any] = {"iteration": 0, "trust_hi": np.inf, "seed": np.random.SeedSequence(0)}
    with tempfile.TemporaryDirectory() as folder:
        explore(potential, batch, settings(10), folder=Path(folder) / "warm", **options)
        cpu, wall = time.process_time(), time.perf_counter()
        found = explore(potential, batch, settings(steps), folder=Path(folder) / "timed", **options)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        assert all(report.steps_done == steps for report in found.walkers), "a walker was stopped"
        watched, start = Timed(potential), time.perf_counter()
        explore(watched, batch, settings(steps), folder=Path(folder) / "watched", **options)
        share = watched.seconds / (time.perf_counter() - start)
    return {"cpu": cpu, "wall": wall, "model": share * cpu}


def with_ase(walkers: int, n_atoms: int, steps: int) -> dict[str, float]:
    from ase import units
    from ase.md.langevin import Langevin

    cpu = wall = 0.0
    for n in range(walkers):
        atoms = silicon(n_atoms)
        atoms.calc = committee().calculator(driver=0, deviation_every=10)
        dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=100.0, friction=0.005 / units.fs, rng=np.random.default_rng(n))
        dynamics.run(10)
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        dynamics.run(steps)
        cpu, wall = cpu + time.process_time() - cpu_start, wall + time.perf_counter() - wall_start
    return {"cpu": cpu, "wall": wall, "model": cpu}


def side_by_side(engine: str, walkers: int, n_atoms: int, cores: int) -> dict[str, float]:
    """Share the walkers among processes that run at once; CPU seconds of all, wall seconds of the slowest."""
    command = [sys.executable, __file__, "--measure", engine, str(walkers // cores), str(n_atoms)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(cores)]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return {name: (max if name == "wall" else sum)(part[name] for part in found) for name in found[0]}


def compare(cores: int, repeat: int) -> None:
    print("walkers  atoms           steps/s  steps per CPU s  not the model  ratio, wall    CPU")
    for walkers, n_atoms in CASES:
        best: dict[str, dict[str, float]] = {}
        for _ in range(repeat):
            for engine in ("ase", "ours"):
                found = side_by_side(engine, walkers, n_atoms, cores)
                best[engine] = min(best.get(engine, found), found, key=lambda run: run["cpu"])
        steps = walkers * STEPS[n_atoms]
        for engine, found in best.items():
            ratios = [best["ase"][clock] / found[clock] for clock in ("wall", "cpu")]
            other = f"{1 - found['model'] / found['cpu']:.1%}" if engine == "ours" else ""
            rates = f"{steps / found['wall']:10.0f}{steps / found['cpu']:17.0f}"
            print(f"{walkers:8}{n_atoms:7}{engine:>8}{rates}{other:>15}{ratios[0]:13.2f}{ratios[1]:7.2f}", flush=True)


def memory() -> None:
    """Resident memory while one walker makes many steps and writes every hundredth."""
    from al_leignn.explore.production import write_trajectory

    every = MEMORY_STEPS // 10

    def progress(done: int, _: int) -> None:
        if done % every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{done:7d} steps {pages * resource.getpagesize() / 2**20:8.1f} MiB", flush=True)

    config = settings(MEMORY_STEPS).model_copy(update={"stride": 100})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "md.extxyz.xz"
        write_trajectory(committee(), silicon(8), config, out, seed=0, progress=progress)
        print(f"trajectory: {out.stat().st_size / 1e3:.0f} kB for {MEMORY_STEPS // 100} frames")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        engine, walkers, n_atoms = given.measure[0], int(given.measure[1]), int(given.measure[2])
        print(json.dumps({"ours": ours, "ase": with_ase}[engine](walkers, n_atoms, STEPS[n_atoms])))
    elif given.memory:
        memory()
    else:
        compare(given.cores, given.repeat)

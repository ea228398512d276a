"""A superionic conductor held to its AIMD: LiPS at 520 K, 83 atoms, 50 ps of MD by four walkers, g(r) beside that of the frames.

    python benchmarks/lips.py FOLDER [--frames 200] [--ps 50] [--workers 2]

A committee of four with the default fit learns N frames from the first three quarters of the trajectory (benchmarks/accuracy.py's
split) and is judged on the last one. Four walkers start from test frames; one member drives, all look every 50 steps. The
difference of two g(r) is their overlap distance (docs/validation.md). The AIMD frames are a random pick of 50 ps without times:
how far its own halves differ is said beside. Fit and MD resume.
"""

import argparse
from pathlib import Path

import numpy as np
from accuracy import split
from ase import Atoms

from al_leignn.config import ExploreConfig, ModelConfig, TrainConfig
from al_leignn.explore.md import Walker, explore
from al_leignn.model.committee import Committee
from al_leignn.model.threads import use_one_thread
from al_leignn.train.committee import fit_committee
from al_leignn.validate.equivalence import Observable
from al_leignn.validate.metrics import errors
from al_leignn.validate.structure import Pair, pair_functions
from al_leignn.validate.trajectory import Trajectory

TEMPERATURE, STEP_FS, STRIDE, WALKERS, SETTLING_PS = 520.0, 2.0, 50, 4, 2.0
INTERVAL_FS = 62.5
"""Of the AIMD frames, on average; g(r) does not depend on it."""


def fitted(folder: Path, n_frames: int, workers: int) -> Committee:
    """The committee, fitted if it is not there yet, and its errors on the test frames."""
    path = folder / "committee.safetensors"
    train, test = split("lips", n_frames)
    if not path.exists():
        fit_committee(train, ModelConfig(), TrainConfig(), seed=0, workers=workers, resume_dir=folder)[0].save(path)
    committee = Committee.load(path)
    predictions = committee.predict([item.frame.atoms for item in test])
    found = errors([p.mean() for p in predictions], [i.labels for i in test], [i.frame.atoms.numbers for i in test])
    forces, energy = 1000 * found.force_mae, 1000 * found.energy_mae
    print(f"{len(train)} frames; on {len(test)} test frames {forces:.1f} meV/Å, {energy:.2f} meV/atom", flush=True)
    return committee


def functions(frames: list[Atoms], interval_fs: float) -> dict[Pair, Observable]:
    """g(r), for which atoms need not be followed from frame to frame: those of the AIMD are too far apart in time."""
    made = Trajectory(
        name="frames",
        numbers=frames[0].numbers,
        pbc=frames[0].pbc,
        cells=np.array([atoms.cell.array for atoms in frames]),
        positions=np.array([atoms.positions for atoms in frames]),
        interval_fs=interval_fs,
    )
    return pair_functions(made, samples=len(frames))


def apart(a: Observable, b: Observable) -> float:
    """Share of two functions that lies in different places."""
    f, g = a.series.mean(0), b.series.mean(0)
    return float(np.abs(f - g).sum() / (np.abs(f) + np.abs(g)).sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--ps", type=float, default=50.0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    use_one_thread()
    committee = fitted(options.folder, options.frames, options.workers)
    everything, test = split("lips", None)
    aimd = [item.frame.atoms for item in (*everything, *test)]
    starts = [test[n].frame.atoms for n in np.linspace(0, len(test) - 1, WALKERS).round().astype(int)]
    found = explore(
        committee,
        [Walker(n, atoms, TEMPERATURE) for n, atoms in enumerate(starts)],
        ExploreConfig(temperatures=[TEMPERATURE], timestep_fs=STEP_FS, steps=round(1000 * options.ps / STEP_FS), stride=STRIDE),
        iteration=0,
        trust_hi=np.inf,
        seed=np.random.SeedSequence(0),
        folder=options.folder / "md",
    )
    for walker in found.walkers:
        print(
            f"walker {walker.index}: {walker.steps_done * STEP_FS / 1000:g} ps, {walker.mean_temperature:.0f} K, "
            f"{walker.stop_reason or 'stable'}"
        )
    halves = [functions(part, INTERVAL_FS) for part in (aimd[: len(aimd) // 2], aimd[len(aimd) // 2 :])]
    whole = functions(aimd, INTERVAL_FS)
    late = [s for s in found.samples if s.frame.origin.step * STEP_FS >= 1000 * SETTLING_PS]
    deviations = np.array([s.deviation.max for s in late])
    print(f"largest force deviation of a frame: median {np.median(deviations):.3f}, largest {deviations.max():.3f} eV/Å")
    mine = [functions([s.frame.atoms for s in late if s.frame.origin.walker == w], STEP_FS * STRIDE) for w in range(WALKERS)]
    print("| g(r) | each walker beside AIMD | halves of the AIMD |\n| --- | --- | --- |")
    for pair, reference in whole.items():
        walkers = ", ".join(f"{apart(one[pair], reference):.1%}" for one in mine)
        print(f"| {reference.name} | {walkers} | {apart(halves[0][pair], halves[1][pair]):.1%} |")

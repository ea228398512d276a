"""Seconds to open a long history: 100 iterations of 10,000 frames, from a made-up campaign that is written first.

python benchmarks/history_speed.py [--iterations 100] [--frames 10000] [--atoms 64] [--dir FOLDER]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from al_leignn.campaign.history import History
from al_leignn.campaign.layout import CONFIG, POOL, SAMPLES, Layout
from al_leignn.core import Stage, StageRequest, Verdict
from al_leignn.select.fate import Fate
from al_leignn.store import Manifest

CAMPAIGN = """
name = "long"
structures = ["Si.cif"]
[labeller]
type = "gpaw"
[explore]
walkers = 8
temperatures = [300.0]
"""
WALKERS = 8


def publish(
    layout: Layout, stage: Stage, iteration: int, result: dict[str, object], arrays: dict[str, dict[str, np.ndarray]]
) -> None:
    folder = layout.item(StageRequest(stage, iteration, 0))
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        np.savez_compressed(folder / name, **values)
    Manifest(stage.value, iteration, 0, {}, "", [], result, times={"wall_s": 1.0, "cpu_s": 1.0}).seal(folder)


def write(root: Path, iterations: int, frames: int, atoms: int) -> Layout:
    """A campaign of which everything that the history reads is there."""
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG).write_text(CAMPAIGN)
    layout = Layout(root)
    rng = np.random.default_rng(0)
    each = frames // WALKERS
    walkers = [{"walker": w, "temperature": 300.0, "steps": 10 * each, "stopped": ""} for w in range(WALKERS)]
    calibration = {"factor": 2.0, "nominal": 0.9, "n": 60, "floor": 1e-4, "blind": 0, "valid": True}
    coverage = {"covered": 5, "n": 6, "frames": 6, "low": 0.36, "high": 0.99, "drift": False, "share": 5 / 6}
    for i in range(iterations):
        layout.open_iteration(i)
        per_atom = rng.lognormal(-3, 0.5, (frames, atoms)).astype(np.float32)
        uid = np.array([f"{n:016x}" for n in rng.integers(0, 2**60, frames)])
        samples = {
            "uid": uid,
            "walker": np.repeat(np.arange(WALKERS), each),
            "step": np.tile(10 * np.arange(each), WALKERS),
            "temperature": np.full(frames, 300.0),
            "max_deviation": per_atom.max(axis=1).astype(float),
            "energy_deviation": rng.lognormal(-7, 0.5, frames),
            "per_atom": per_atom.ravel(),
            "mean_force": per_atom.ravel(),
            "atoms": np.full(frames, atoms),
        }
        publish(layout, Stage.EXPLORE, i, {"frames": frames, "steps": 10 * frames, "walkers": walkers}, {SAMPLES: samples})
        verdicts = {"accurate": frames, "candidate": 0, "failed": 0}
        fates = {str(fate): 0 for fate in Fate} | {"accurate": frames}
        pool = {
            "uid": uid,
            "fate": np.full(frames, str(Fate.ACCURATE)),
            "verdict": np.full(frames, str(Verdict.ACCURATE)),
            "novelty": np.ones(frames),
        }
        trust = {"lo": 0.1, "hi": 0.5}
        selection = {"pool": frames, "labels": 0, "verdicts": verdicts, "fates": fates, "trust": trust}
        publish(layout, Stage.SELECT, i, selection, {POOL: pool})
        errors = {"force_mae": 0.03, "energy_mae": 0.002, "n_frames": 6}
        found = {"fresh": errors, "trust": trust, "calibration": calibration, "coverage": coverage, "gates": []}
        publish(layout, Stage.VALIDATE, i, found, {})
    return layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--atoms", type=int, default=64)
    parser.add_argument("--dir", type=Path, help="keep the campaign there, and use it if it is there already")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.dir or Path(scratch) / "long"
        if not root.exists():
            write(root, arguments.iterations, arguments.frames, arguments.atoms)
        layout = Layout.open(root)
        size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
        print(f"{len(list(layout.iterations.iterdir()))} iterations, {size / 1e6:.0f} MB")
        for _ in range(3):
            began, cpu = time.perf_counter(), time.process_time()
            rows = History(layout).walker_rows()
            print(f"rows: {len(rows)} in {time.perf_counter() - began:.2f} s ({time.process_time() - cpu:.2f} s of CPU)")
        began = time.perf_counter()
        subprocess.run(
            [str(Path(sys.executable).with_name("al-leignn")), "history", str(root), "--json"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print(f"al-leignn history: {time.perf_counter() - began:.2f} s with the start of Python")


if __name__ == "__main__":
    main()

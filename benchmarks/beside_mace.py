"""One member and MACE 64x0e trained on the same frames at the same time, one core each: who is how accurate when?

    python benchmarks/beside_mace.py [SET ...] [--frames N ...] [--minutes M] [--json FILE]
    python benchmarks/beside_mace.py --draw FIGURE --json FILE

The member has its default fit. MACE (2 layers, max_ell 3, correlation 3, 8 Bessel functions, cutoff 5 Å, float32, batches of 4
frames, its own defaults otherwise) trains for M minutes, or without --minutes for as long as the member; its learning rate falls
by a factor of 100 over that time, because a fit that is stopped at its peak rate would be judged below its worth. Both are judged
on the same test frames. MACE must have validation frames: a tenth of the trajectory blocks, which cost it some training frames.
Times are CPU time on one thread each, MACE's without its imports and its final tests.

Several SETs and several N give learning curves (N frames drawn at random; one drawing).
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from accuracy import SYSTEMS, known, split
from peers import peers_python

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.committee import Committee
from al_leignn.model.threads import use_one_thread
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.schedule import planned_steps
from al_leignn.train.split import leave_out
from al_leignn.train.trainer import fit_member
from al_leignn.validate.metrics import errors

PEAK, FALL = 0.01, 100.0
"""MACE's default learning rate, and how far it falls."""

TRIAL_STEPS, TRIAL_EPOCHS = 60, 2
"""By these the time that the member and MACE take is judged beforehand."""


def write(path: Path, frames: list[LabelledFrame]) -> None:
    images = []
    for item in frames:
        atoms = item.frame.atoms.copy()
        atoms.info = {"REF_energy": item.labels.energy}
        atoms.arrays["REF_forces"] = item.labels.forces
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


def train_mace(folder: Path, e0s: dict[int, float], epochs: int) -> float:
    """CPU time of the whole process, s. Leaves its log in `folder`."""
    options: dict[str, Any] = {
        "name": "mace", "model": "MACE", "train_file": "train.xyz", "valid_file": "valid.xyz", "test_file": "test.xyz",
        "E0s": str(e0s), "energy_key": "REF_energy", "forces_key": "REF_forces", "r_max": 5.0, "hidden_irreps": "64x0e",
        "num_interactions": 2, "max_ell": 3, "correlation": 3, "num_radial_basis": 8, "batch_size": 4, "valid_batch_size": 4,
        "max_num_epochs": epochs, "lr": PEAK, "scheduler": "ExponentialLR", "lr_scheduler_gamma": FALL ** (-1 / epochs),
        "device": "cpu", "default_dtype": "float32", "seed": 0, "eval_interval": 1, "error_table": "PerAtomMAE",
    }  # fmt: skip
    command = [peers_python(), "-m", "mace.cli.run_train", "--ema", "--ema_decay=0.99"]
    command += [f"--{key}={value}" for key, value in options.items()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"MACE failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


def mace_errors(folder: Path) -> tuple[float, float]:
    """Test errors of the averaged weights by MACE's own table, meV/atom and meV/Å."""
    rows = re.findall(r"^\W*Default_Default\s*\|\s*([\d.]+)\s*\|\s*([\d.]+)", (folder / "log.txt").read_text(), re.MULTILINE)
    return float(rows[-1][0]), float(rows[-1][1])


def fit(frames: list[LabelledFrame], e0s: dict[int, float], out: Path, steps: int) -> float:
    """Fit one member; CPU time it took, s."""
    start, seed = time.process_time(), np.random.SeedSequence(0)
    fit_member(frames, ModelConfig(), TrainConfig(), member=0, seed=seed, e0s=e0s, start=None, out=out, steps=steps)
    return time.process_time() - start


def compare(name: str, n_frames: int | None, minutes: float | None) -> dict[str, Any]:
    """Train both; what came of it."""
    frames, test = split(name, n_frames)
    training, holdout = leave_out(frames, share=0.1, member=0)
    e0s, steps = fit_e0s(frames), planned_steps(TrainConfig(), [len(f.frame.atoms) for f in frames], warm=False)
    with tempfile.TemporaryDirectory() as temporary:
        trial, folder = Path(temporary) / "trial", Path(temporary) / "whole"
        for place in (trial, folder):
            place.mkdir()
            for file, part in (("train", training), ("valid", holdout), ("test", test)):
                write(place / f"{file}.xyz", part)
        start_up, more = (train_mace(trial, e0s, epochs) for epochs in (1, 1 + TRIAL_EPOCHS))
        epoch = (more - start_up) / TRIAL_EPOCHS
        planned = fit(frames, e0s, folder / "trial.safetensors", TRIAL_STEPS) * steps / TRIAL_STEPS
        epochs = max(2, round((planned if minutes is None else 60 * minutes) / epoch))

        with ThreadPoolExecutor(1) as executor:
            beside = executor.submit(train_mace, folder, e0s, epochs)
            ours = fit(frames, e0s, folder / "member.safetensors", steps)
            theirs = beside.result() - start_up + epoch
        predictions = Committee.load([folder / "member.safetensors"]).predict([item.frame.atoms for item in test])
        found = errors([p.mean() for p in predictions], [i.labels for i in test], [i.frame.atoms.numbers for i in test])
        energy, force = mace_errors(folder)
    return {
        "system": name, "train": len(frames), "test": len(test), "cpu_s": ours, "energy_mae": found.energy_mae * 1e3,
        "force_mae": found.force_mae * 1e3, "mace_cpu_s": theirs, "mace_epochs": epochs, "mace_energy_mae": energy,
        "mace_force_mae": force,
    }  # fmt: skip


def row(result: dict[str, Any]) -> str:
    return (
        "| {system} | {train} | {cpu_s:.0f} | {energy_mae:.3g} | {force_mae:.3g} "
        "| {mace_cpu_s:.0f} ({mace_epochs}) | {mace_energy_mae:.3g} | {mace_force_mae:.3g} |".format(**result)
    )


def draw(results: list[dict[str, Any]], figure: Path) -> None:
    """Learning curves of the systems that were fitted with several numbers of frames."""
    import matplotlib.pyplot as plt  # not before it is known that nothing is to be timed

    curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in sorted(results, key=lambda r: r["train"]):
        curves[result["system"]].append(result)
    curves = {name: found for name, found in curves.items() if len(found) > 1}
    _, grid = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 3.0), layout="constrained", squeeze=False, sharey=True)
    for axes, (name, found) in zip(grid[0], curves.items(), strict=True):
        frames = [r["train"] for r in found]
        axes.loglog(frames, [r["mace_force_mae"] for r in found], "s--", color="0.5", label="MACE 64x0e, equal time")
        axes.loglog(frames, [r["force_mae"] for r in found], "o-", color="C3", label="one member")
        axes.set(title=name, xlabel="training frames", xticks=frames, xticklabels=frames)
        axes.minorticks_off()
    ticks = [5, 10, 20, 50, 100, 200]
    grid[0, 0].set(ylabel="test force MAE (meV/Å)", yticks=ticks, yticklabels=ticks)
    grid[0, 0].legend()
    plt.savefig(figure, dpi=110)


HEAD = (
    "| system | frames | one member: CPU s | meV/atom | meV/Å | MACE 64x0e: CPU s (epochs) | meV/atom | meV/Å |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", type=known, metavar="SET", help=f"{', '.join(SYSTEMS)} [default: mlearn_si]")
    parser.add_argument("--frames", type=int, nargs="+", help="[default: all training frames]")
    parser.add_argument("--minutes", type=float, help="of MACE [default: as long as the member]")
    parser.add_argument("--json", type=Path, help="one line for each pair of fits is added to this file")
    parser.add_argument("--draw", type=Path, metavar="FIGURE", help="fit nothing; draw what --json holds")
    given = parser.parse_args()
    if given.draw:
        draw([json.loads(line) for line in given.json.read_text().splitlines()], given.draw)
        return
    use_one_thread()
    print(HEAD, flush=True)
    for name in given.systems or ["mlearn_si"]:
        for n_frames in given.frames or [None]:
            result = compare(name, n_frames, given.minutes)
            print(row(result), flush=True)
            if given.json:
                with given.json.open("a") as file:
                    file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

"""One member and MACE 64x0e trained on the same frames at the same time, one core each: who is how accurate when?

    python benchmarks/beside_mace.py [SET] [--frames N] [--minutes 30]

MACE (2 layers, max_ell 3, correlation 3, 8 Bessel functions, cutoff 5 Å, float32, batches of 4 frames, its own defaults
otherwise) trains for the given time; its learning rate falls by a factor of 100 over it, because a fit that is stopped at its
peak rate would be judged below its worth. Both are judged on the same test frames. MACE must have validation frames: a
tenth of the trajectory blocks, which cost it some training frames.
"""

import argparse
import os
import re
import subprocess
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from accuracy import SYSTEMS, split
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


def write(path: Path, frames: list[LabelledFrame]) -> None:
    images = []
    for item in frames:
        atoms = item.frame.atoms.copy()
        atoms.info = {"REF_energy": item.labels.energy}
        atoms.arrays["REF_forces"] = item.labels.forces
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


def train_mace(folder: Path, e0s: dict[int, float], epochs: int) -> None:
    """Leaves its log in `folder`."""
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
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=log, stderr=subprocess.STDOUT)


def seconds_of_epoch(folder: Path) -> float:
    """By the log of a training of one epoch."""
    lines = (folder / "log.txt").read_text().splitlines()
    begin, end = (
        datetime.fromisoformat(" ".join(next(line for line in lines if text in line).split()[:2]))
        for text in ("Started training", "Epoch 0:")
    )
    return (end - begin).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", nargs="?", choices=list(SYSTEMS), default="mlearn_si")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--minutes", type=float, default=30.0)
    given = parser.parse_args()
    use_one_thread()
    frames, test = split(given.system, given.frames)
    training, holdout = leave_out(frames, share=0.1, member=0)
    e0s = fit_e0s(frames)
    with tempfile.TemporaryDirectory() as name:
        trial, folder = Path(name) / "trial", Path(name) / "whole"
        for place in (trial, folder):
            place.mkdir()
            for file, part in (("train", training), ("valid", holdout), ("test", test)):
                write(place / f"{file}.xyz", part)
        train_mace(trial, e0s, 1)
        epochs = max(2, round(60 * given.minutes / seconds_of_epoch(trial)))
        start, took = time.perf_counter(), [0.0]

        def mace() -> None:
            train_mace(folder, e0s, epochs)
            took[0] = time.perf_counter() - start

        beside = threading.Thread(target=mace)
        beside.start()
        train, out = TrainConfig(), folder / "member.safetensors"
        seed, steps = np.random.SeedSequence(0), planned_steps(train, [len(f.frame.atoms) for f in frames], warm=False)
        fit_member(frames, ModelConfig(), train, member=0, seed=seed, e0s=e0s, start=None, out=out, steps=steps)
        ours = time.perf_counter() - start
        predictions = Committee.load([out]).predict([item.frame.atoms for item in test])
        found = errors([p.mean() for p in predictions], [i.labels for i in test], [i.frame.atoms.numbers for i in test])
        beside.join()
        log = (folder / "log.txt").read_text()
    print(f"{given.system}: {len(frames)} frames, {len(test)} for testing")
    print(f"LEIGNN: {ours:.0f} s; {found.energy_mae * 1e3:.2f} meV/atom, {found.force_mae * 1e3:.1f} meV/Å")
    print(f"MACE 64x0e: {took[0]:.0f} s, {epochs} epochs; its own table (MAE, meV/atom, meV/Å):")
    print("\n".join(re.findall(r"^.*\|.*$", log, flags=re.MULTILINE)[-8:]))


if __name__ == "__main__":
    main()

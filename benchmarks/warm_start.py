"""What a warm start saves and what it costs: one member on a set that grows, continued at each size or fitted anew.

Mlearn silicon (see AL_LEIGNN_DATA): frames are drawn once at random, so a larger set contains the smaller ones. Errors are on the
published test split. `--steps` sets those of a fit from scratch; a warm start takes a third, as in a campaign.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.committee import Committee
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.schedule import planned_steps
from al_leignn.train.trainer import fit_member
from al_leignn.userdata import read_user_data
from al_leignn.validate.evaluate import evaluate

DATA = Path(os.environ.get("AL_LEIGNN_DATA", "../shared/data")) / "mlearn_si"


def measure(frames: list[LabelledFrame], test: list[LabelledFrame], settings: TrainConfig, start: Path | None, out: Path) -> str:
    """Fit one member; a row of the table."""
    sizes = [len(f.frame.atoms) for f in frames]
    steps = planned_steps(settings, sizes, warm=start is not None)
    began = time.process_time()
    seed = np.random.SeedSequence(0)
    e0s = fit_e0s(frames)
    fit_member(frames, ModelConfig(), settings, member=0, seed=seed, e0s=e0s, start=start, out=out, steps=steps)
    seconds = time.process_time() - began
    found = evaluate(Committee.load(out).predict([f.frame.atoms for f in test]), test).committee
    kind = "scratch" if start is None else "warm"
    return f"| {len(frames)} | {kind} | {steps} | {seconds:.0f} | {1e3 * found.energy_mae:.1f} | {1e3 * found.force_mae:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 60, 80])
    parser.add_argument("--steps", type=int, help="optimiser steps from scratch [default: those of a campaign]")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = TrainConfig() if arguments.steps is None else TrainConfig(steps=arguments.steps)
    frames, test = (read_user_data(DATA / f"{part}.extxyz.xz", "as given") for part in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(frames))
    print("| frames | start | steps | CPU s | energy MAE, meV/atom | force MAE, meV/Å |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        before: Path | None = None
        for size in arguments.sizes:
            some = [frames[n] for n in order[:size]]
            scratch = Path(folder) / f"{size}-scratch"
            print(measure(some, test, settings, None, scratch), flush=True)
            if before is None:
                before = scratch
                continue
            warm = Path(folder) / f"{size}-warm"
            print(measure(some, test, settings, before, warm), flush=True)
            before = warm


if __name__ == "__main__":
    main()

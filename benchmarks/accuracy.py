"""Errors on public data sets, with the package's defaults: one configuration for every system.

    python benchmarks/accuracy.py [SET ...] [--frames N] [--members 4] [--workers 2] [--json FILE] [--course]

Reads the sets under AL_LEIGNN_DATA (default: ../shared/data). Test frames are in no fit and choose nothing.
--frames trains on N of the training frames, drawn at random. --course fits one member only and looks at the test frames on
the way: when is it within a tenth of its final force error?
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from al_leignn.config import ModelConfig, TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.threads import use_one_thread
from al_leignn.train.baseline import fit_e0s
from al_leignn.train.committee import fit_committee
from al_leignn.train.schedule import planned_steps
from al_leignn.train.screening import set_aside
from al_leignn.train.trainer import FitReport, fit_member
from al_leignn.userdata import read_user_data
from al_leignn.validate.evaluate import evaluate

DATA = Path(os.environ.get("AL_LEIGNN_DATA", "../shared/data"))

TEST_SHARE = 0.25
"""Of a trajectory without a published split, this share at its end is the test set."""


@dataclass(frozen=True)
class System:
    train: str
    test: str | None
    """Another file; None: the end of the training file's trajectory."""
    published: str


SYSTEMS = {
    "mlearn_si": System("train", "test", "MAE 2.1 to 2.2 meV/atom and 60 meV/Å (MTP, ACE)"),
    "mlearn_mo": System("train", "test", "MAE 2.24 meV/atom and 90 meV/Å (GAP)"),
    "mlearn_li": System("train", "test", "MAE 0.165 to 0.49 meV/atom and 5 to 10 meV/Å (ACE, MTP)"),
    "3bpa": System("train_300K", "test_300K", "force RMSE 27.1 (linear ACE), 10.8 (NequIP), 8.8 meV/Å (MACE)"),
    "lips": System("train", None, "force MAE 97.8, 25.8, 7.7 meV/Å from 10, 100, 1000 random frames (NequIP)"),
    "water_pbe0ts": System("train", None, "force RMSE 11 to 12 meV/Å, other frames (NequIP)"),
    "ethanol_rmd17": System("train", "test", "force MAE 2.1 meV/Å from 1000 frames (MACE, Allegro)"),
    "md17_aspirin": System("random_950", "random_50", "force MAE 8.0 meV/Å from 1000 frames (NequIP)"),
}

PUBLISHED = ("mlearn_si", "mlearn_mo", "mlearn_li", "3bpa")
"""Those with a published split, and published errors on it."""


def known(name: str) -> str:
    """A word of the command line; argparse's own `choices` refuse that there is none."""
    if name not in SYSTEMS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(SYSTEMS)}")
    return name


def read(path: Path) -> list[LabelledFrame]:
    frames, aside = set_aside(read_user_data(path, "as published"))
    if aside:
        print(f"{path.name}: {len(aside)} frames set aside", file=sys.stderr)
    return frames


def split(name: str, n_train: int | None) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Training frames and test frames of a system."""
    system, folder = SYSTEMS[name], DATA / name
    train = read(folder / f"{system.train}.extxyz.xz")
    if system.test is None:
        train.sort(key=lambda item: int(item.frame.atoms.info.get("order", 0)))
        cut = round((1 - TEST_SHARE) * len(train))
        train, test = train[:cut], train[cut:]
    else:
        test = read(folder / f"{system.test}.extxyz.xz")
    if n_train is not None and n_train < len(train):
        chosen = sorted(np.random.default_rng(0).permutation(len(train))[:n_train])
        train = [train[i] for i in chosen]
    trained_on = {item.frame.uid for item in train}
    return train, [item for item in test if item.frame.uid not in trained_on]


def measure(name: str, train: TrainConfig, workers: int, n_train: int | None) -> dict[str, Any]:
    frames, test = split(name, n_train)
    start = time.perf_counter()

    def say(member: int, report: FitReport) -> None:
        print(f"  member {member}: {report.history[-1]['seconds']:.0f} s", file=sys.stderr, flush=True)

    committee, reports = fit_committee(frames, ModelConfig(), train, seed=0, workers=workers, finished=say)
    wall = time.perf_counter() - start
    found = evaluate(committee.predict([item.frame.atoms for item in test]), test)
    return {
        "system": name,
        "train": len(frames),
        "test": len(test),
        "steps": int(reports[0].history[-1]["step"]),
        "wall_s": wall,
        "member_s": [report.history[-1]["seconds"] for report in reports],
        **found.to_dict(),
    }


def course(name: str, n_train: int | None) -> None:
    """Fit one member with an eye on the test frames, which choose nothing: the last weights are the ones that count."""
    frames, test = split(name, n_train)
    train = TrainConfig()
    with tempfile.TemporaryDirectory() as folder:
        report = fit_member(
            frames,
            ModelConfig(),
            train,
            member=0,
            seed=np.random.SeedSequence(0),
            e0s=fit_e0s(frames),
            start=None,
            out=Path(folder) / "member.safetensors",
            steps=planned_steps(train, [len(item.frame.atoms) for item in frames], warm=False),
            valid=test,
        )
    final = report.history[-1]
    near = next(entry for entry in report.history if entry["valid_force_mae"] <= 1.1 * final["valid_force_mae"])
    print(
        f"{name}: {1e3 * final['valid_force_mae']:.1f} meV/Å after {final['seconds']:.0f} s; "
        f"within a tenth of it after {near['seconds']:.0f} s ({near['step'] / final['step']:.0%} of the steps)",
        flush=True,
    )


def row(result: dict[str, Any]) -> str:
    def four(key: str, unit: float = 1e3) -> tuple[str, str]:
        return f"{unit * result['committee'][key]:.3g}", f"{unit * np.mean([m[key] for m in result['members']]):.3g}"

    cells = [f"{mean} ({member})" for mean, member in map(four, ("energy_mae", "energy_rmse", "force_mae", "force_rmse"))]
    sizes, wall = f"{result['train']}, {result['test']}", f"{result['wall_s']:.0f}"
    return "| " + " | ".join([result["system"], sizes, *cells, wall, SYSTEMS[result["system"]].published]) + " |"


HEAD = (
    "| system | trained, tested on | energy MAE | RMSE, meV/atom | force MAE | RMSE, meV/Å | wall time, s | published |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "systems", nargs="*", type=known, metavar="SET", help=f"{', '.join(SYSTEMS)} [default: those with a published split]"
    )
    parser.add_argument("--frames", type=int)
    parser.add_argument("--members", type=int, default=TrainConfig().members)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="one line for each system is added to this file")
    parser.add_argument("--course", action="store_true", help="one member, judged on the way")
    given = parser.parse_args(arguments)
    systems = given.systems or PUBLISHED
    if given.course:
        use_one_thread()
        for name in systems:
            course(name, given.frames)
        return
    print(HEAD, flush=True)
    for name in systems:
        result = measure(name, TrainConfig(members=given.members), given.workers, given.frames)
        print(row(result), flush=True)
        if given.json:
            with given.json.open("a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

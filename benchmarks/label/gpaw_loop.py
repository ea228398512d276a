"""GPAW through the label stage beside a plain ASE loop over the same frames, and what reusing the density would gain.

    python benchmarks/label/gpaw_loop.py [--frames 6] [--out FILE]

Eight silicon atoms, PBE, 300 eV, 2 x 2 x 2 k-points: consecutive frames of one MD run, 50 fs apart. The plain loop is one process
with one calculator for each frame; "reused" keeps the calculator, so that each SCF starts from the density before. What
`al-leignn check` would have said of time and memory of a label stands beside what the plain loop took.
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
from ase import units
from ase.build import bulk
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.io import write
from ase.md.verlet import VelocityVerlet

from al_leignn.campaign.estimate import label_memory, label_seconds
from al_leignn.config import CampaignConfig, GpawConfig
from al_leignn.core import Frame, Labels, Origin
from al_leignn.label.base import label_frame, make_labeller
from al_leignn.label.gpaw import gpaw_parameters
from al_leignn.label.rescue import LADDER
from al_leignn.labelstore import LabelStore
from al_leignn.store import Stopwatch

SILICON = TersoffParameters(3, 1, 0, 100390.0, 16.217, -0.59825, 0.78734, 1.1e-6, 1.7322, 471.18, 2.85, 0.15, 2.4799, 1830.8)
"""Tersoff, Phys. Rev. B 38, 9902 (1988)."""

CONFIG = GpawConfig(ecut=300.0, kpts=(2, 2, 2), gamma_centred=False)
LOOP = """
import json, sys
from ase.io import read
from gpaw import GPAW
parameters = json.load(open("parameters.json"))
found, calc = [], None
for atoms in read("frames.extxyz", ":"):
    if calc is None or sys.argv[1] == "plain":
        calc = GPAW(txt="gpaw.txt", **parameters)
    atoms.calc = calc
    energy = atoms.get_potential_energy(force_consistent=True)
    found.append({"energy": energy, "forces": atoms.get_forces().tolist(), "stress": atoms.get_stress().tolist(),
                  "steps": int(calc.get_number_of_iterations())})
json.dump(found, open("found.json", "w"))
"""


def md_frames(count: int) -> list[Frame]:
    """Frames of MD with a classical potential: what they are labelled with does not matter here."""
    atoms = bulk("Si", cubic=True)
    atoms.calc = Tersoff({("Si", "Si", "Si"): SILICON})
    width = np.sqrt(units.kB * 1200 * atoms.get_masses())[:, None]  # half of it becomes potential energy: about 600 K
    atoms.set_momenta(width * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    found = []
    for n in range(count):
        dynamics.run(50)
        found.append(Frame.of(atoms, Origin("md", step=n)))
    return found


def loop(folder: Path, frames: list[Frame], kind: str) -> dict[str, Any]:
    write(folder / "frames.extxyz", [frame.atoms for frame in frames])
    (folder / "parameters.json").write_text(json.dumps(gpaw_parameters(CONFIG, frames[0].atoms, LADDER[0])))
    (folder / "loop.py").write_text(LOOP)
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "loop.py", kind], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    found = json.loads((folder / "found.json").read_text())
    return {"wall_s": time.perf_counter() - start, "cpu_s": cpu, "steps": [one["steps"] for one in found], "found": found}


def ours(folder: Path, frames: list[Frame]) -> dict[str, Any]:
    labeller, store = make_labeller(CONFIG), LabelStore(folder / "labels")
    _ = labeller.level  # asked once in a process
    watch = Stopwatch()
    results = [label_frame(labeller, frame, store, folder / "scratch").result for frame in frames]
    times = watch.times()
    assert all(isinstance(result, Labels) for result in results)
    return {"wall_s": times["wall_s"], "cpu_s": times["cpu_s"], "labels": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpaw_loop.json")
    options = parser.parse_args()
    frames = md_frames(options.frames)
    told: dict[str, Any] = {"frames": len(frames), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        runs: dict[str, Any] = {"ours": ours(Path(name), frames)}
        for kind in ("plain", "reused"):
            (Path(name) / kind).mkdir()
            runs[kind] = loop(Path(name) / kind, frames, kind)
            told[kind] = {key: runs[kind][key] for key in ("wall_s", "cpu_s", "steps")}
            told["ours"] = {key: runs["ours"][key] for key in ("wall_s", "cpu_s")}
            options.out.write_text(json.dumps(told, indent=1))  # nothing is lost when this is cut off
    plain, reused = (np.array([one["forces"] for one in runs[kind]["found"]]) for kind in ("plain", "reused"))
    labels = np.array([result.forces for result in runs["ours"]["labels"]])
    told["ours_over_plain"] = {key: told["ours"][key] / told["plain"][key] for key in ("wall_s", "cpu_s")}
    told["plain_over_reused"] = {key: told["plain"][key] / told["reused"][key] for key in ("wall_s", "cpu_s")}
    told["force_difference_meV_A"] = {
        "reused": float(1e3 * np.abs(reused - plain).max()),
        "ours": float(1e3 * np.abs(labels - plain).max()),
    }
    cost, atoms = CampaignConfig(name="loop", structures=["Si.extxyz"], labeller=CONFIG), frames[0].atoms
    told["label_core_s"] = {"foretold": label_seconds(cost, atoms), "measured": told["plain"]["cpu_s"] / len(frames)}
    told["memory_GB"] = {
        "foretold": label_memory(cost, atoms) / 1e9,
        "measured": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6,
    }
    options.out.write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

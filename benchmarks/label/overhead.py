"""What the workflow adds to a label, and what a second worker gains.

    python benchmarks/label/overhead.py [--labels 1000] [--out FILE]

Overhead: a label stage of so many frames of four copper atoms, with effective medium theory as the labeller; the time of
the calculator itself is measured on the same frames and taken off. Throughput: the local runner with one and two workers and a
labeller that waits 0.4 s, as a DFT code on cores of its own would have one wait.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT

from al_leignn.campaign.layout import SELECTED, Layout
from al_leignn.campaign.stages import run_stage
from al_leignn.core import Frame, Origin, Stage, StageRequest
from al_leignn.flow.local import do_requests
from al_leignn.flow.watch import Silence
from al_leignn.processes import Workers
from al_leignn.store import read_frames, write_frames

CONFIG = """
name = "labels"
structures = ["Cu.extxyz"]
[labeller]
{labeller}
[checks]
repeat_share = 0.0
[seeds]
rattled = {labels}
strained = 0
hot = 0
[budget]
labels = {labels}
"""
EMT_LABELLER = 'type = "ase"\ncalculator = "ase.calculators.emt:EMT"'
WAIT = """
import sys, time
from pathlib import Path
time.sleep(0.4)
rows = Path(sys.argv[1]).read_text().splitlines()
head = rows[1].replace("pos:R:3", "pos:R:3:REF_forces:R:3") + f" REF_energy=-{len(rows)}"
Path(sys.argv[2]).write_text("\\n".join([rows[0], head, *(row + " 0.0 0.0 0.0" for row in rows[2:])]) + "\\n")
"""


def campaign(folder: Path, labeller: str, labels: int) -> Layout:
    """A campaign whose frames are chosen and whose labels are still to be made."""
    folder.mkdir()
    write_frames(folder / "Cu.extxyz", [Frame.of(bulk("Cu", cubic=True), Origin("given"))])
    (folder / "campaign.toml").write_text(CONFIG.format(labeller=labeller, labels=labels))
    layout = Layout.open(folder)
    run_stage(layout, StageRequest(Stage.EXPLORE, 0, 0))
    run_stage(layout, StageRequest(Stage.SELECT, 0, 0))
    return layout


def overhead(folder: Path, labels: int) -> dict[str, Any]:
    layout = campaign(folder, EMT_LABELLER, labels)
    frames = read_frames(layout.item(StageRequest(Stage.SELECT, 0, 0)) / SELECTED)[:labels]
    wall, cpu = time.perf_counter(), time.process_time()
    each = []
    for n in range(len(frames)):
        before = time.process_time()
        run_stage(layout, StageRequest(Stage.LABEL, 0, n))
        each.append(time.process_time() - before)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    start = time.process_time()
    for frame in frames:
        atoms = frame.atoms.copy()
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
    alone = time.process_time() - start
    return {
        "labels": len(frames),
        "overhead_cpu_ms": 1e3 * (cpu - alone) / len(frames),
        "overhead_wall_ms": 1e3 * (wall - alone) / len(frames),
        "first_100_cpu_ms": 1e3 * float(np.mean(each[1:100])),
        "last_100_cpu_ms": 1e3 * float(np.mean(each[-100:])),
        "emt_cpu_ms": 1e3 * alone / len(frames),
    }


def throughput(folder: Path, workers: int, labels: int) -> float:
    """Seconds of the label stage, worker processes being up."""
    folder.mkdir()
    script = folder / "wait.py"
    script.write_text(WAIT)
    labeller = f'type = "external"\ncommand = ["{sys.executable}", "-S", "{script}", "{{input}}", "{{output}}"]'
    layout = campaign(folder / "campaign", labeller, labels)
    requests = [StageRequest(Stage.LABEL, 0, n) for n in range(labels)]
    with Workers(workers) as pool:
        do_requests(layout, requests[:workers], pool, Silence())  # starting and importing is not labelling
        start = time.perf_counter()
        do_requests(layout, requests[workers:], pool, Silence())
        return (time.perf_counter() - start) / (labels - workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "overhead.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        told = {"load": os.getloadavg()[0], "overhead": overhead(Path(name) / "emt", options.labels)}
        options.out.write_text(json.dumps(told, indent=1))
        one, two = (throughput(Path(name) / f"workers-{n}", n, 22) for n in (1, 2))
    told["throughput"] = {"one_worker_s": one, "two_workers_s": two, "ratio": one / two}
    options.out.write_text(json.dumps(told, indent=1))
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

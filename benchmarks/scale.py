"""What a campaign costs besides its science, as it grows: planning and `status`, and the overhead of an item in both runners.

    python benchmarks/scale.py manifests [--labels 10000] [--each 1000]      scan, plan, status and mend over so many labels
    python benchmarks/scale.py items [--runner run|launch] [--frames 100] [--workers 2] [--iterations 3]

Labels are by effective medium theory, a millisecond each: what is left is overhead. Results are printed as JSON.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from ase.build import bulk
from ase.io import write

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.layout import CONFIG, Layout
from al_leignn.campaign.mend import mend
from al_leignn.campaign.plan import next_requests
from al_leignn.campaign.state import scan
from al_leignn.core import Stage, StageRequest
from al_leignn.flow.watch import Silence
from al_leignn.store import MANIFEST, Manifest, read_manifest

SETTINGS = """
name = "scale"
structures = ["Cu.extxyz"]
[labeller]
type = "ase"
calculator = "ase.calculators.emt:EMT"
[checks]
repeat_share = 0.0
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 20
warm_steps = 20
device = "cpu"
[seeds]
rattled = {frames}
strained = 0
hot = 2
[explore]
temperatures = [300.0]
walkers = 1
steps = 200
stride = 1
[converge]
stability_ps = 0
[select]
budget = {budget}
fresh = 3
[budget]
labels = 1000000
iterations = {iterations}
"""


def make(root: Path, frames: int, iterations: int, budget: int = 3) -> Layout:
    root.mkdir(parents=True)
    write(root / "Cu.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
    (root / CONFIG).write_text(SETTINGS.format(frames=frames, iterations=iterations, budget=budget))
    return Layout.open(root)


def timed(work: Callable[[], Any], repeats: int = 3) -> dict[str, float]:
    """Least wall and CPU seconds of a few calls."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": round(min(walls), 4), "cpu_s": round(min(cpus), 4)}


# --- many manifests ----------------------------------------------------------------------------------------


def manifests(folder: Path, labels: int, each: int) -> dict[str, Any]:
    """A campaign of two iterations, its second one copied until there are so many labels, the last one still labelling."""
    from al_leignn.flow.local import run

    layout = make(folder / "campaign", 6, 1)
    run(layout, workers=1, max_iterations=None, watcher=Silence())
    count = labels // each
    for index in range(2, count + 1):
        shutil.copytree(layout.iteration(1), layout.iteration(index))
    for index in range(1, count + 1):
        multiply(layout, index, each)
    last = layout.iteration(count)
    for stage in (Stage.COLLECT, Stage.TRAIN, Stage.VALIDATE, Stage.CONVERGE):
        shutil.rmtree(last / stage.value)
    shutil.rmtree(layout.item(StageRequest(Stage.LABEL, count, each - 1)))
    found = len(list(layout.iterations.glob(f"*/{Stage.LABEL}/*/{MANIFEST}")))
    state = scan(layout)
    assert next_requests(state) == [StageRequest(Stage.LABEL, count, each - 1)]
    return {
        "labels": found,
        "iterations": count + 1,
        "scan": timed(lambda: scan(layout)),
        "plan": timed(lambda: next_requests(state)),
        "status": timed(Campaign(layout).status),
        "mend": timed(lambda: mend(layout)),
    }


def multiply(layout: Layout, index: int, labels: int) -> None:
    """Give every manifest of an iteration its number, and the iteration so many labels."""
    for path in layout.iteration(index).rglob(MANIFEST):
        manifest = known(path.parent)
        changed = {"labels": labels} if manifest.stage == Stage.SELECT else {}
        if manifest.stage == Stage.CONVERGE:
            changed = {"decision": "continue"}
        replace(manifest, iteration=index, result=manifest.result | changed).seal(path.parent)
    first = layout.item(StageRequest(Stage.LABEL, index, 0))
    manifest = known(first)
    for item in range(labels):
        folder = layout.item(StageRequest(Stage.LABEL, index, item))
        if item > 0:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(first, folder)
        replace(manifest, item=item).seal(folder)


def known(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


# --- overhead of an item -----------------------------------------------------------------------------------


class Scales(Silence):
    """Weighs the queue and the processes after each iteration."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def decided(self, layout: Layout, iteration: int) -> None:
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        database = (
            sum(p.stat().st_size for p in (layout.queue / "data").rglob("*") if p.is_file()) if layout.queue.is_dir() else 0
        )
        self.seen.append(
            {
                "iteration": iteration,
                "database_MB": round(database / 1e6, 2),
                "runner_MB": round(family[0].memory_info().rss / 1e6, 1),
                "all_MB": round(sum(p.memory_info().rss for p in family) / 1e6, 1),
            }
        )


def items(folder: Path, runner: str, frames: int, workers: int, iterations: int) -> dict[str, Any]:
    """Run a campaign, and say what a label took from the first to the last of the first iteration."""
    layout = make(folder / "campaign", frames, iterations)
    scales = Scales()
    begun = time.perf_counter()
    if runner == "run":
        from al_leignn.flow.local import run

        run(layout, workers=workers, max_iterations=None, watcher=scales)
    else:
        from al_leignn.flow.fireworks import launch

        launch(layout, launchpad_file=None, workers=workers, max_iterations=None, watcher=scales)
    whole = time.perf_counter() - begun
    labels = [known(path.parent) for path in layout.stage(0, Stage.LABEL).glob(f"*/{MANIFEST}")]
    ends = sorted(m.times["finished"] for m in labels)
    select = known(layout.item(StageRequest(Stage.SELECT, 0, 0))).times["finished"]
    return {
        "runner": runner,
        "workers": workers,
        "labels": len(labels),
        "whole_s": round(whole, 1),
        "per_label_s": round((ends[-1] - ends[0]) / max(len(ends) - 1, 1), 4),
        "item_cpu_s": round(sum(m.times["cpu_s"] for m in labels) / len(labels), 4),
        "before_the_first_label_s": round(ends[0] - select, 2),
        "iterations": scales.seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    many = parts.add_parser("manifests")
    many.add_argument("--labels", type=int, default=10_000)
    many.add_argument("--each", type=int, default=1000)
    one = parts.add_parser("items")
    one.add_argument("--runner", choices=["run", "launch"], default="run")
    one.add_argument("--frames", type=int, default=100)
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--iterations", type=int, default=3)
    given = vars(parser.parse_args(sys.argv[1:] or ["manifests"]))
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        part = {"manifests": manifests, "items": items}[given.pop("part")]
        print(json.dumps(part(Path(folder), **given), indent=1))


if __name__ == "__main__":
    main()

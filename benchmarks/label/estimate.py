"""Time and memory of one GPAW label, foretold by `al-leignn check` and measured, in three modes, crystals, metals and molecules.

    python benchmarks/label/estimate.py [--only NAME ...] [--out FILE]

Time: core-seconds of a label by a server that is running, as in a campaign. Memory: the largest resident set of its process.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.campaign.estimate import label_memory, label_seconds
from al_leignn.config import CampaignConfig, GpawConfig
from al_leignn.core import Frame, Labels, Origin
from al_leignn.label.gpaw import GpawLabeller, shared_server
from al_leignn.store import Stopwatch

SILICON, WATER = bulk("Si", cubic=True), molecule("H2O")
TWICE = {"kpts": (2, 2, 2)}

CASES: dict[str, tuple[Atoms, dict[str, Any]]] = {
    "Si8, pw": (SILICON, TWICE),
    "Si2, pw": (bulk("Si"), {"kpts": (4, 4, 4)}),
    "Al4, pw": (bulk("Al", cubic=True), {"kpts": (6, 6, 6)}),
    "Cu4, pw": (bulk("Cu", cubic=True), {"kpts": (4, 4, 4), "ecut": 350.0}),
    "Fe2, spin, pw": (bulk("Fe", cubic=True), {"kpts": (4, 4, 4), "spin": True, "ecut": 350.0}),
    "NaCl8, pw": (bulk("NaCl", "rocksalt", a=5.64, cubic=True), TWICE | {"ecut": 350.0}),
    "H2O, pw": (WATER, {}),
    "CH3OH, pw": (molecule("CH3OH"), {}),
    "Si2, lcao": (bulk("Si"), TWICE | {"mode": "lcao"}),
    "Al4, lcao": (bulk("Al", cubic=True), TWICE | {"mode": "lcao"}),
    "H2O, lcao": (WATER, {"mode": "lcao"}),
    "Si2, fd": (bulk("Si"), TWICE | {"mode": "fd"}),
    "H2O, fd": (WATER, {"mode": "fd"}),
    "Si16, pw": (SILICON.repeat((2, 1, 1)), {"kpts": (1, 2, 2)}),
    "Si32, pw": (SILICON.repeat((2, 2, 1)), {"kpts": (1, 1, 2)}),
    # The estimate was not fitted to these.
    "NH3, fd": (molecule("NH3"), {"mode": "fd", "vacuum": 4.0}),
    "C8, lcao": (bulk("C", cubic=True), TWICE | {"mode": "lcao"}),
    "Ti2, pw": (bulk("Ti"), {"kpts": (4, 4, 2), "ecut": 350.0}),
    "MgO8, pw": (bulk("MgO", "rocksalt", a=4.2, cubic=True), TWICE | {"ecut": 400.0}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = {}
    for name in arguments.only:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            rows[name] = pool.apply(measure, (name,))
        print(f"{name:<15}", " ".join(f"{key} {value:.3g}" for key, value in rows[name].items()), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(name: str) -> dict[str, float]:
    """Core-seconds and GB, foretold and measured. Needs a process of its own: the system tells of the largest child ever."""
    atoms, keys = CASES[name]
    settings = GpawConfig.model_validate(keys)
    config = CampaignConfig(name="x", structures=["x"], labeller=settings)
    label(GpawConfig(ecut=150.0, vacuum=2.0), molecule("H2"))  # now the server has imported GPAW
    found = {
        "foretold_s": label_seconds(config, atoms),
        "measured_s": label(settings, atoms),
        "foretold_gb": label_memory(config, atoms) / 1e9,
    }
    shared_server(sys.executable).close()
    return found | {"measured_gb": 1024e-9 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}


def label(settings: GpawConfig, atoms: Atoms) -> float:
    """Core-seconds of one label."""
    moved = atoms.copy()
    moved.rattle(0.05, seed=1)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        result = GpawLabeller(settings).label(Frame.of(moved, Origin("given")), Path(folder))
    if not isinstance(result, Labels):
        raise SystemExit(f"no label: {result}")
    return watch.times()["cpu_s"]


if __name__ == "__main__":
    main()

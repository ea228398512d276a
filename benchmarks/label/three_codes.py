"""One frame labelled by GPAW, Quantum ESPRESSO and CP2K at the same level of theory: do they agree?

    python benchmarks/label/three_codes.py [--out FILE]

Eight silicon atoms, displaced by 0.1 Å, PBE, 2 x 2 x 2 k-points with Gamma, Fermi-Dirac 0.1 eV; each code with its own
pseudopotentials and basis set. Total energies have different zeros: forces, stress and energy differences are compared.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

from al_leignn.config import Cp2kConfig, EspressoConfig, GpawConfig
from al_leignn.config import Labeller as LabellerConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin
from al_leignn.label.base import make_labeller
from al_leignn.units import GPA, MEV

GRID = (2, 2, 2)
CODES: dict[str, LabellerConfig] = {
    "GPAW": GpawConfig(ecut=400.0, kpts=GRID, density_convergence=1e-5),
    "Quantum ESPRESSO": EspressoConfig(
        ecut=600.0, density_factor=8.0, kpts=GRID, pseudopotentials={"Si": "Si.pbe-nl-rrkjus_psl.1.0.0.UPF"}
    ),
    "CP2K": Cp2kConfig(kpts=GRID, cutoff=4080.0, rel_cutoff=680.0),
}


def frames() -> list[Frame]:
    """The frame, and a second one for differences of energies."""
    found = []
    for seed in (5, 6):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(0.1, seed=seed)
        found.append(Frame.of(atoms, Origin("rattle")))
    return found


def label(config: LabellerConfig, frame: Frame) -> tuple[Labels, float]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        result = make_labeller(config).label(frame, Path(scratch))
    if isinstance(result, LabelFailure):
        raise SystemExit(f"{result.reason}: {result.detail}")
    return result, time.perf_counter() - start


def compare(out: Path) -> None:
    made: dict[str, list[Labels]] = {}
    told: dict[str, Any] = {"codes": {}, "differences": {}}
    for name, config in CODES.items():
        labels, seconds = zip(*(label(config, frame) for frame in frames()), strict=True)
        made[name] = list(labels)
        told["codes"][name] = make_labeller(config).describe() | {"seconds": [round(s, 1) for s in seconds]}
        out.write_text(json.dumps(told, indent=1))
    names = list(made)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            told["differences"][f"{a} - {b}"] = difference(made[a], made[b])
    told["rms_force_meV_A"] = float(np.sqrt(np.mean(made["GPAW"][0].forces ** 2)) / MEV)
    out.write_text(json.dumps(told, indent=1))
    print(json.dumps(told["differences"], indent=1))


def difference(a: list[Labels], b: list[Labels]) -> dict[str, float]:
    forces = a[0].forces - b[0].forces
    assert a[0].stress is not None
    assert b[0].stress is not None
    energy = (a[0].energy - a[1].energy) - (b[0].energy - b[1].energy)
    return {
        "force_mae_meV_A": float(np.abs(forces).mean() / MEV),
        "force_rms_meV_A": float(np.sqrt(np.mean(forces**2)) / MEV),
        "force_max_meV_A": float(np.abs(forces).max() / MEV),
        "energy_difference_meV_atom": float(energy / len(forces) / MEV),
        "stress_max_GPa": float(np.abs(a[0].stress - b[0].stress).max() / GPA),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "three_codes.json")
    compare(parser.parse_args().out)

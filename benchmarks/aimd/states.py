"""Three states of matter from a structure alone to a verdict beside AIMD, all with GPAW labels, by the commands that users have.

    python benchmarks/aimd/states.py FOLDER [--systems silicon sodium methane] [--ps 4] [--until aimd|run|validate] [--kept]

A solid (Si, 8 atoms, 300 and 1000 K), a liquid (Na, 18 atoms, 1000 K) and a molecule (CH4, 300 K). The friction is strong: a
total energy is then forgotten within 25 to 50 fs, and a few ps of AIMD hold enough independent ones to decide something. For
each: `init`, one `aimd` for each temperature, `run` with these as references, `validate` with figures, `evaluate` on AIMD
frames, `md` for the speed. Every command resumes: killed, the script goes on where it was; a larger --ps makes the references
longer, and the campaign decides anew. --kept begins with the AIMD in `references/`, hours of GPAW, instead of making it.
FOLDER/<system>/result.json holds the numbers; tables are printed at the end.
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from al_leignn.units import FS

AL = Path(sys.executable).with_name("al-leignn")
EVERY = 10
"""AIMD frames between those that errors are measured on."""

SPEED_STEPS = 2000

KEPT = Path(__file__).with_name("references")
"""AIMD of earlier runs, <system>-<T>K.extxyz.xz, each with the state that `al-leignn aimd` needs to make it longer."""


@dataclass(frozen=True)
class System:
    structure: Callable[[], Atoms]
    temperatures: tuple[int, ...]
    labeller: dict[str, Any]
    timestep_fs: float
    friction_per_ps: float
    """Near twice the frequency of the slower modes, where they forget fastest."""
    settle_ps: float


def liquid_sodium() -> Atoms:
    """Eighteen atoms at the density of the liquid at 1000 K, 0.781 g/cm³, melted with a pair potential: AIMD need not melt them.

    No cubic lattice has eighteen atoms in a cubic box. Sixteen at 500 K froze within 4 ps of AIMD, as bcc does in so small a box.
    """
    side = (18 * 22.99 / 0.60221 / 0.781) ** (1 / 3)
    rng = np.random.default_rng(0)
    sites = bulk("Na", "sc", a=side / 3, cubic=True).repeat((3, 3, 3))
    atoms = sites[np.sort(rng.permutation(len(sites))[:18])]
    atoms.calc = LennardJones(sigma=3.3, epsilon=0.04, rc=side / 2, smooth=True)
    MaxwellBoltzmannDistribution(atoms, temperature_K=2000, rng=rng)
    for kelvin in (2000, 1000):
        Langevin(atoms, 5 * FS, temperature_K=kelvin, friction=0.01 / FS, rng=rng).run(1000)
    return Atoms(numbers=atoms.numbers, positions=atoms.get_positions(wrap=True), cell=atoms.cell, pbc=True)


def methane() -> Atoms:
    atoms = molecule("CH4", vacuum=2.5)
    atoms.pbc = False
    return atoms


SYSTEMS = {
    "silicon": System(
        structure=lambda: bulk("Si", "diamond", a=5.469, cubic=True),
        temperatures=(300, 1000),
        labeller={"ecut": 200.0, "kpts": [2, 2, 2], "gamma_centred": False},
        timestep_fs=4.0,
        friction_per_ps=20.0,
        settle_ps=0.2,
    ),
    "sodium": System(
        structure=liquid_sodium,
        temperatures=(1000,),
        # With 250 eV forces change by 0.3 meV/Å (rms), with 4 x 4 x 4 points by 6 to 7, 3 % of their own rms.
        labeller={"ecut": 120.0, "kpts": [2, 2, 2], "gamma_centred": False, "datasets": {"Na": "1"}},
        timestep_fs=6.0,
        friction_per_ps=20.0,
        settle_ps=0.8,
    ),
    "methane": System(
        structure=methane,
        temperatures=(300,),
        # Turning the molecule changes forces by 3 meV/Å (rms); CO2 at 300 eV by up to 200, which nobody could learn.
        labeller={"ecut": 400.0, "kpts": [1, 1, 1], "vacuum": 2.5},
        timestep_fs=1.0,
        friction_per_ps=40.0,
        settle_ps=0.1,
    ),
}
CAMPAIGN = {
    "budget": {"labels": 100, "iterations": 5},
    "seeds": {"rattled": 6, "strained": 4, "hot": 8},
    "select": {"budget": 10, "fresh": 5},
    "explore": {"steps": 2000},
}


def al(*words: str | Path, cwd: Path, accept: tuple[int, ...] = (0,)) -> str:
    """Run a command of the package; its output."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run([AL, *map(str, words)], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in accept:
        raise SystemExit(f"al-leignn {' '.join(map(str, words))} ended with {done.returncode}")
    return done.stdout


def prepare(name: str, system: System, folder: Path) -> None:
    """The campaign folder, from the structure alone."""
    if (folder / "campaign" / "campaign.toml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    atoms = system.structure()
    write(folder / f"{name}.extxyz", atoms)
    hot = [word for t in system.temperatures for word in ("--temperature", str(t))]
    al("init", f"{name}.extxyz", "--dir", "campaign", "--inputs", "gpaw_pw_pbe_fast", *hot, cwd=folder)
    path = folder / "campaign" / "campaign.toml"
    config = tomlkit.parse(path.read_text(encoding="utf-8"))
    for section, values in (CAMPAIGN | {"labeller": system.labeller}).items():
        config[section].update(values)
    config["explore"].update(timestep_fs=system.timestep_fs, friction_per_ps=system.friction_per_ps)
    config["converge"]["references"] = [f"aimd-{t}K.extxyz" for t in system.temperatures]
    path.write_text(tomlkit.dumps(config), encoding="utf-8")


def unpack(name: str, system: System, campaign: Path) -> None:
    """AIMD that was kept, where the campaign has none yet."""
    for t in system.temperatures:
        for kept in KEPT.glob(f"{name}-{t}K.extxyz*.xz"):
            out = campaign / kept.stem.replace(name, "aimd", 1)
            if not out.exists():
                out.write_bytes(lzma.decompress(kept.read_bytes()))


def measure(system: System, folder: Path) -> dict[str, Any]:
    """Everything that is reported, from what the commands left behind and two more of them."""
    campaign = folder / "campaign"
    status = json.loads(al("status", "--json", cwd=campaign))
    result: dict[str, Any] = {
        "decision": status["decision"],
        "labels": status["labels"],
        "md": status["md"],
        "aimd": [json.loads((campaign / f"aimd-{t}K.json").read_text()) for t in system.temperatures],
        "verdicts": {},
        "errors": {},
    }
    for t in system.temperatures:
        reference = campaign / f"aimd-{t}K.extxyz"
        made = folder / f"md-{t}K.extxyz"
        made.unlink(missing_ok=True)
        words = ("validate", "campaign", "--reference", reference, "--out", made, "--plot", f"figures-{t}K", "--json")
        result["verdicts"][t] = json.loads(al(*words, cwd=folder, accept=(0, 1)))
        frames = folder / f"frames-{t}K.extxyz"
        write(frames, read(reference, f"::{EVERY}"))
        result["errors"][t] = json.loads(al("evaluate", "campaign", frames, "--json", cwd=folder))["committee"]
    result["md_s_per_step"] = {driver: speed(folder, system.temperatures[0], driver) for driver in ("mean", "member")}
    return result


def speed(folder: Path, temperature: int, driver: str) -> float:
    """CPU seconds of a step of `al-leignn md`, start of the command included in neither of two runs' difference."""
    times = []
    for steps in (SPEED_STEPS // 4, SPEED_STEPS):
        out = folder / "speed.extxyz"
        out.unlink(missing_ok=True)
        before = os.times()
        structure = next((folder / "campaign" / "structures").iterdir())
        words = ("--temperature", str(temperature), "--steps", str(steps), "--driver", driver, "--out", out)
        al("md", "campaign", structure, *words, cwd=folder)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return (times[1] - times[0]) / (SPEED_STEPS - SPEED_STEPS // 4)


def report(name: str, result: dict[str, Any]) -> None:
    aimd = result["aimd"]
    cost = sum(one["core_s"] for one in aimd)
    print(f"\n## {name}: {result['decision']['kind']}\n\n{result['decision']['reason']}\n")
    print(f"AIMD: {sum(one['length_ps'] for one in aimd):.3g} ps, {cost:.0f} core-s; labels of the campaign: "
          f"{result['labels']['computed']}, {result['labels']['core_s']:.0f} core-s")  # fmt: skip
    share = result["md"]["without_label"]
    print(f"MD steps without a label: {'-' if share is None else f'{share:.2%}'} of {result['md']['steps']}")
    for driver, seconds in result["md_s_per_step"].items():
        print(
            f"step of MD, driver {driver}: {1000 * seconds:.2f} ms; of AIMD {aimd[0]['core_s_per_step'] / seconds:.0f} times that"
        )
    for t, found in result["verdicts"].items():
        e = result["errors"][t]
        print(f"\n{t} K: force MAE {1000 * e['force_mae']:.1f} meV/Å ({e['force_mae'] / e['force_rms']:.1%} of the rms force) on "
              f"{e['n_frames']} AIMD frames; {found['outcome']}\n")  # fmt: skip
        print("| observable | verdict | difference | noise | tolerance |\n| --- | --- | --- | --- | --- |")
        for o in found["observables"]:
            numbers = " | ".join("-" if o[k] is None else f"{o[k]:.3g}" for k in ("difference", "noise", "tolerance"))
            print(f"| {o['name']} | {o['verdict']} | {numbers} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--ps", type=float, default=4.0)
    parser.add_argument("--until", choices=["aimd", "run", "validate"], default="validate")
    parser.add_argument("--kept", action="store_true", help="begin with AIMD that was kept")
    options = parser.parse_args()
    for name in options.systems:
        system, folder = SYSTEMS[name], options.folder / name
        prepare(name, system, folder)
        if options.kept:
            unpack(name, system, folder / "campaign")
        for t in system.temperatures:
            start = time.monotonic()
            words = ("--temperature", str(t), "--ps", str(options.ps), "--settle-ps", str(system.settle_ps))
            al("aimd", "campaign", *words, cwd=folder)
            print(f"{name}, {t} K: AIMD in {time.monotonic() - start:.0f} s", flush=True)
        if options.until != "aimd":
            al("run", "campaign", "--workers", "1", cwd=folder, accept=(0, 3))
        if options.until == "validate":
            result = measure(system, folder)
            told = json.dumps(result, indent=1).replace(f"{folder.resolve()}/", "")
            (folder / "result.json").write_text(told, encoding="utf-8")
            report(name, result)

"""How often verdicts on MD are wrong: many trajectories of a crystal whose potential is known, and of one that is distorted.

    python benchmarks/aimd/verdicts.py [--replicas 20] [--lengths 5 20] [--frictions 0.5 5] [--out FILE]

Eight atoms of a face-centred cubic crystal at 600 K, nearest neighbours bound by Morse potentials: anharmonic, and quick enough
for long trajectories of all replicas at once. "AIMD" is a trajectory with it; MD, four times as long, is driven by the same
potential, or by one whose energies are larger by 5 or 10 %. Of the same potential, every claim of a difference is wrong; of
another, truth is what all replicas together say, and differences too near to the tolerance to tell so are not judged.
Lines of results are appended to FILE; `--table` prints what they come to.
"""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.neighborlist import neighbor_list
from jaxtyping import Float

from al_leignn.store import digest_json
from al_leignn.units import FS, KB
from al_leignn.validate.agreement import agree
from al_leignn.validate.trajectory import Trajectory

CRYSTAL = bulk("Cu", "fcc", a=3.62, cubic=True).repeat((2, 1, 1))
DEPTH, WIDTH = 0.34, 1.36
"""eV and 1/Å: Morse's potential for copper (Girifalco and Weizer, Phys. Rev. 114, 687 (1959)), nearest neighbours only."""

TEMPERATURE = 600.0
TIMESTEP_FS = 4.0
STRIDE = 2
SETTLING = 4.0
"""Before a trajectory begins, over the time that the thermostat needs to renew the energy."""

MD_LENGTH = 4

NEAR = 1.3
"""Pooled differences within this factor of the tolerance do not say which side the true one is on."""


def trajectories(replicas: int, ps: float, scale: float, friction: float, rng: np.random.Generator) -> list[Trajectory]:
    """MD of all replicas at once (BAOAB, friction in 1/ps), with energies scaled."""
    first, second, vectors = neighbor_list("ijD", CRYSTAL, 1.2 * 3.62 / np.sqrt(2))
    length = float(np.linalg.norm(vectors[0]))
    n, mass = len(CRYSTAL), CRYSTAL.get_masses()[:, None]
    gather = np.zeros((n, len(first)))
    gather[first, np.arange(len(first))] = 1.0

    def forces(moved: Float[np.ndarray, "replicas n 3"]) -> tuple[np.ndarray, np.ndarray]:
        bonds = vectors + moved[:, second] - moved[:, first]
        distance = np.linalg.norm(bonds, axis=2)
        decay = np.exp(-WIDTH * (distance - length))
        energy = 0.5 * scale * DEPTH * ((1 - decay) ** 2).sum(axis=1)
        pull = 2 * scale * DEPTH * WIDTH * (1 - decay) * decay / distance
        return energy, gather @ (pull[..., None] * bonds)

    dt, keep = TIMESTEP_FS * FS, np.exp(-friction * TIMESTEP_FS / 1000)
    thermal = np.sqrt(KB * TEMPERATURE / mass)
    moved = np.zeros((replicas, n, 3))
    velocities = np.sqrt(2) * thermal * rng.standard_normal(moved.shape)  # half of it becomes potential energy
    settling, steps = (round(1000 * t / TIMESTEP_FS) for t in (SETTLING / friction, ps))
    kept = steps // STRIDE
    path, speed, push = (np.empty((kept, replicas, n, 3)) for _ in range(3))
    potential = np.empty((kept, replicas))
    energy, force = forces(moved)
    for step in range(settling + kept * STRIDE):
        velocities += 0.5 * dt * force / mass
        moved += 0.5 * dt * velocities
        velocities = keep * velocities + np.sqrt(1 - keep**2) * thermal * rng.standard_normal(moved.shape)
        moved += 0.5 * dt * velocities
        energy, force = forces(moved)
        velocities += 0.5 * dt * force / mass
        row, rest = divmod(step - settling, STRIDE)
        if step >= settling and rest == 0:
            path[row], speed[row], push[row], potential[row] = moved, velocities, force, energy
    return [
        Trajectory(
            name=f"replica {k}",
            numbers=CRYSTAL.numbers,
            pbc=CRYSTAL.pbc,
            cells=np.tile(np.asarray(CRYSTAL.cell), (kept, 1, 1)),
            positions=CRYSTAL.positions + path[:, k],
            interval_fs=STRIDE * TIMESTEP_FS,
            velocities=speed[:, k] * FS,
            temperature=TEMPERATURE,
            thermostat="langevin",
            friction_per_ps=friction,
            timestep_fs=TIMESTEP_FS,
            freedom=3 * n,
            energies=potential[:, k],
            kinetic=0.5 * (mass * speed[:, k] ** 2).sum(axis=(1, 2)),
            forces=push[:, k],
        )
        for k in range(replicas)
    ]


def run(replicas: int, ps: float, friction: float, scales: list[float], out: Path) -> None:
    """All verdicts for one length of the reference, as lines of JSON."""
    root = np.random.SeedSequence(int(digest_json([replicas, ps, friction])[:8], 16))
    for_reference, *for_md, for_verdicts = root.spawn(2 + len(scales))
    references = trajectories(replicas, ps, 1.0, friction, np.random.default_rng(for_reference))
    for scale, child in zip(scales, for_md, strict=True):
        runs = trajectories(replicas, MD_LENGTH * ps, scale, friction, np.random.default_rng(child))
        for k, (reference, md) in enumerate(zip(references, runs, strict=True)):
            found = agree(reference, md, seed=for_verdicts.spawn(1)[0])
            line = {
                "ps": ps,
                "friction": friction,
                "scale": scale,
                "replica": k,
                "outcome": found.outcome.value,
                "observables": [
                    {
                        "name": c.name,
                        "outcome": c.outcome.value,
                        "tolerance": c.tolerance,
                        "measure": c.measure.value,
                        "reference": c.reference.mean.tolist(),
                        "md": c.md.mean.tolist(),
                    }
                    for c in found.comparisons
                ],
            }
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def size(observable: dict) -> float:
    """Sum of absolute differences that counts as 1 in the observable's measure."""
    reference, md = (float(np.abs(observable[side]).sum()) for side in ("reference", "md"))
    match observable["measure"]:
        case "overlap":
            return reference + md
        case "relative":
            return reference
        case _:
            return float(len(observable["reference"]))


def truth(lines: list[dict]) -> dict[str, str]:
    """What is right to claim of each observable; nothing where it cannot be told."""
    found = {}
    for place, observable in enumerate(lines[0]["observables"]):
        if lines[0]["scale"] == 1.0:
            found[observable["name"]] = "equivalent"
            continue
        same = [line["observables"][place] for line in lines]
        reference, md = (np.mean([one[side] for one in same], axis=0) for side in ("reference", "md"))
        # Relative tolerances have a floor, which is many times a mean that happens to be near zero: what is absolute is averaged.
        limit = float(np.mean([one["tolerance"] * size(one) for one in same]))
        times = np.abs(md - reference).sum() / limit
        found[observable["name"]] = "different" if times > NEAR else "equivalent" if times < 1 / NEAR else ""
    return found


def table(path: Path) -> None:
    groups = defaultdict(list)
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        groups[line["friction"], line["ps"], line["scale"]].append(line)
    print("| friction, 1/ps | AIMD, ps | energies of the MD's potential | trajectories | truly different observables "
          "| equivalent | undecided | different | with a wrong claim | claims right, wrong |")  # fmt: skip
    print("| --- " * 10 + "|")
    for (friction, ps, scale), lines in sorted(groups.items()):
        right = truth(lines)
        outcomes = Counter(line["outcome"] for line in lines)
        claims = [
            [o["outcome"] == right[o["name"]] for o in line["observables"] if right[o["name"]] and o["outcome"] != "undecided"]
            for line in lines
        ]
        wrong = sum(not all(one) for one in claims)
        n_right, n_wrong = (sum(claim is kind for one in claims for claim in one) for kind in (True, False))
        shown = ", ".join(name for name, verdict in right.items() if verdict == "different") or "none"
        counts = " | ".join(str(outcomes[name]) for name in ("equivalent", "undecided", "different"))
        print(f"| {friction:g} | {ps:g} | {scale:.2f} | {len(lines)} | {shown} | {counts} | {wrong} | {n_right}, {n_wrong} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--lengths", type=float, nargs="+", default=[5.0, 20.0])
    parser.add_argument("--frictions", type=float, nargs="+", default=[0.5, 5.0])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.05, 1.10])
    parser.add_argument("--out", type=Path, default=Path("verdicts.jsonl"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        table(options.out)
    else:
        for length in options.lengths:
            for friction in options.frictions:
                run(options.replicas, length, friction, options.scales, options.out)

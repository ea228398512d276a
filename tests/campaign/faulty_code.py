"""A DFT code that is not one: Morse energies and forces of one frame, and every fault that a code or cluster may add.

    python faulty_code.py INPUT OUTPUT FOLDER

FOLDER/faults holds a file for each fault still to come; each call in iteration 0 takes the first of them, the fault whose
name begins with `z` waits for iteration 1.
"""

import re
import sys
import time
from pathlib import Path

import numpy as np

DEPTH, WIDTH, REACH, ATOM = 0.35, 1.4, 6.0, -3.7
LENGTH = {"CuCu": 2.7, "AlCu": 2.75, "AlAl": 2.9}


def read(path: Path) -> tuple[str, list[str], np.ndarray, np.ndarray]:
    _, head, *rows = path.read_text().splitlines()
    cell = np.array(re.findall(r'Lattice="([^"]*)"', head)[0].split(), float).reshape(3, 3)
    words = [row.split() for row in rows]
    return head, [w[0] for w in words], np.array([w[1:4] for w in words], float), cell


def morse(symbols: list[str], positions: np.ndarray, cell: np.ndarray) -> tuple[float, np.ndarray]:
    energy, forces = ATOM * len(symbols), np.zeros_like(positions)
    images = np.array([[i, j, k] for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2) for k in (-2, -1, 0, 1, 2)]) @ cell
    for i, a in enumerate(symbols):
        for j, b in enumerate(symbols):
            vectors = positions[j] + images - positions[i]
            r = np.linalg.norm(vectors, axis=1)
            near = (r > 1e-6) & (r < REACH)
            r, vectors = r[near], vectors[near]
            x = np.exp(-WIDTH * (r - LENGTH["".join(sorted((a, b)))]))
            fade = (1 - (r / REACH) ** 2) ** 2
            pair = DEPTH * (x * x - 2 * x)
            energy += 0.5 * float((pair * fade).sum())
            slope = DEPTH * (-2 * WIDTH) * (x * x - x) * fade - pair * 4 * r / REACH**2 * (1 - (r / REACH) ** 2)
            forces[i] += (slope / r) @ vectors
    return energy, forces


def next_fault(folder: Path, iteration: int) -> str:
    for token in sorted((folder / "faults").iterdir()):
        if token.name.startswith("z") == (iteration > 0):
            try:
                token.rename(folder / "taken" / token.name)
            except FileNotFoundError:
                continue  # another worker was quicker
            return token.name.split("-", 1)[1]
    return ""


def text(head: str, symbols: list[str], positions: np.ndarray, energy: float, forces: np.ndarray, more: str = "") -> str:
    head = head.replace("pos:R:3", "pos:R:3:REF_forces:R:3") + f" REF_energy={energy:.9f} {more}"
    rows = [f"{s} " + " ".join(f"{v:.9f}" for v in (*p, *f)) for s, p, f in zip(symbols, positions, forces, strict=True)]
    return "\n".join([str(len(symbols)), head, *rows, ""])


def main(source: Path, target: Path, folder: Path) -> None:
    head, symbols, positions, cell = read(source)
    energy, forces = morse(symbols, positions, cell)
    good = text(head, symbols, positions, energy, forces)
    fault = next_fault(folder, int(re.findall(r"\biteration=(\d+)", head)[0]))
    earlier = folder / "earlier.extxyz"
    if not fault:
        if not earlier.exists():
            earlier.write_text(good)
            np.savez(folder / "earlier.npz", energy=energy, forces=forces)
        target.write_text(good)
        return
    if fault == "crash":
        sys.exit("MPI_ABORT was invoked on rank 0")
    if fault == "hang":
        time.sleep(600)
    if fault in ("duplicated result", "stale file"):
        numbers = np.load(folder / "earlier.npz")
        made_up = text(head, symbols, positions, float(numbers["energy"]), numbers["forces"])
        target.write_text(made_up if fault == "duplicated result" else earlier.read_text())
        return
    target.write_text(
        {
            "unconverged": good.replace("REF_energy", "converged=F REF_energy"),
            "empty output": "",
            "truncated output": good[: len(good) * 2 // 3],
            "not a number": text(head, symbols, positions, energy, forces * np.nan),
            "wrong atom order": text(head, symbols[::-1], positions[::-1], energy, forces[::-1]),
            "wrong units": text(head, symbols, positions, energy / 27.211386, forces / 51.422067),
            "wrong cell": re.sub(
                r'Lattice="([^"]*)"', lambda m: f'Lattice="{" ".join(str(float(v) * 1.01) for v in m[1].split())}"', good
            ),
            "another functional": text(head, symbols, positions, energy - 0.5 * len(symbols), forces),
            "partial write": "\n".join([str(len(symbols)), head, *(" ".join(r.split()[:4]) for r in good.splitlines()[2:]), ""]),
        }[fault]
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

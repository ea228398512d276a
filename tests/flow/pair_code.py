"""A DFT code that is not one, started in milliseconds: Morse energies and forces of one frame, and a note of each run.

    python pair_code.py INPUT OUTPUT

The file named by PAIR_CODE_LEDGER gets a line `begin UID` and a line `end UID`; between them lie PAIR_CODE_PAUSE seconds.
"""

import itertools
import math
import os
import re
import sys
import time
from pathlib import Path

DEPTH, WIDTH, REACH, ATOM, LENGTH = 0.35, 1.4, 6.0, -3.7, 2.7
PAUSE_S = float(os.environ.get("PAIR_CODE_PAUSE", "0.1"))  # so that there is a labeller to be killed


def note(word: str, uid: str) -> None:
    with Path(os.environ["PAIR_CODE_LEDGER"]).open("a") as ledger:
        ledger.write(f"{word} {uid}\n")


def pair(r: float) -> tuple[float, float]:
    """Energy and its derivative; both vanish at REACH."""
    x, fade = math.exp(-WIDTH * (r - LENGTH)), (1 - (r / REACH) ** 2) ** 2
    energy = DEPTH * (x * x - 2 * x)
    return energy * fade, -2 * DEPTH * WIDTH * (x * x - x) * fade - energy * 4 * r / REACH**2 * (1 - (r / REACH) ** 2)


def morse(positions: list[list[float]], cell: list[list[float]]) -> tuple[float, list[list[float]]]:
    energy, forces = ATOM * len(positions), [[0.0] * 3 for _ in positions]
    shifts = [
        [sum(n * vector[k] for n, vector in zip(image, cell, strict=True)) for k in range(3)]
        for image in itertools.product((-2, -1, 0, 1, 2), repeat=3)
    ]
    for i, j, shift in itertools.product(range(len(positions)), range(len(positions)), shifts):
        away = [positions[j][k] + shift[k] - positions[i][k] for k in range(3)]
        r = math.sqrt(sum(x * x for x in away))
        if 1e-6 < r < REACH:
            value, slope = pair(r)
            energy += 0.5 * value
            forces[i] = [f + slope * x / r for f, x in zip(forces[i], away, strict=True)]
    return energy, forces


def main(source: str, target: str) -> None:
    count, head, *rows = Path(source).read_text().splitlines()
    uid = re.findall(r"\buid=id:(\w+)", head)[0]
    note("begin", uid)
    flat = [float(x) for x in re.findall(r'Lattice="([^"]*)"', head)[0].split()]
    words = [row.split() for row in rows]
    positions = [[float(x) for x in w[1:4]] for w in words]
    energy, forces = morse(positions, [flat[:3], flat[3:6], flat[6:]])
    head = head.replace("pos:R:3", "pos:R:3:REF_forces:R:3") + f" REF_energy={energy:.9f}"
    lines = [" ".join([w[0], *(f"{x:.9f}" for x in (*p, *f))]) for w, p, f in zip(words, positions, forces, strict=True)]
    time.sleep(PAUSE_S)
    Path(target).write_text("\n".join([count, head, *lines, ""]))
    note("end", uid)


if __name__ == "__main__":
    main(*sys.argv[1:])

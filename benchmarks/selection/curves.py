"""Learning curves of what `loops.py` and `pools.py` have measured so far, with 95 % intervals over seeds, as one figure.

python benchmarks/selection/curves.py FIGURE [FOLDER of pools.jsonl and loops.jsonl]
"""

import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import t as student_t
from tables import Row, error, rows

COLOURS = {"own": "C3", "own, none held back": "C1", "dp-gen": "C0", "farthest": "C2", "random": "0.4"}
COLUMNS = 4


def draw(axes: Axes, title: str, found: list[Row]) -> None:
    """One panel: round by round, mean number of labels and geometric mean of the error."""
    curves: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        curves[row["rule"]][row["round"]].append(row)
    for rule, by_round in curves.items():
        labels, middle, half = [], [], []
        for same in by_round.values():
            logs = np.log([1e3 * error(row) for row in same])
            labels.append(np.mean([row["labels"] for row in same]))
            middle.append(logs.mean())
            half.append(student_t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
        x, y, dy = map(np.array, (labels, middle, half))
        axes.plot(x, np.exp(y), "o-", color=COLOURS[rule], label=rule, markersize=3)
        axes.fill_between(x, np.exp(y - dy), np.exp(y + dy), color=COLOURS[rule], alpha=0.12, linewidth=0)
    seeds = len({row["seed"] for row in found})
    axes.set(title=f"{title}, {seeds} seeds", xlabel="labels", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def main(figure: Path, folder: Path) -> None:
    panels: dict[str, list[Row]] = defaultdict(list)
    for row in (*rows(folder / "loops.jsonl"), *rows(folder / "pools.jsonl")):
        panels[row.get("oracle") or row["system"]].append(row)
    height = -(-(len(panels) + 1) // COLUMNS)
    _, grid = plt.subplots(height, COLUMNS, figsize=(3.2 * COLUMNS, 2.8 * height), layout="constrained")
    for axes, (title, found) in zip(grid.flat, panels.items(), strict=False):
        draw(axes, title, found)
    for axes in grid[:, 0]:
        axes.set_ylabel("force MAE (meV/Å)")
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    grid.flat[-1].legend(
        handles=[plt.Line2D([], [], color=colour, marker="o", label=rule) for rule, colour in COLOURS.items()], loc="center"
    )
    plt.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "results")

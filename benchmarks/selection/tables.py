"""Tables of what `pools.py`, `loops.py` and `coverage.py` have measured so far, with 95 % intervals over seeds.

python benchmarks/selection/tables.py [FOLDER of pools.jsonl, loops.jsonl and coverage.jsonl]
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interval(values: Sequence[float], scale: float = 1.0, digits: int = 0) -> str:
    """Mean, and its 95 % interval by Student's t where there are several seeds."""
    x = scale * np.array(values)
    if len(x) < 2:
        return f"{x.mean():.{digits}f}"
    half = student_t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():.{digits}f} ± {half:.{digits}f}"


def error(row: Row) -> float:
    """Force MAE, eV/Å; of several temperatures the largest."""
    found = row["force_mae"]
    return float(max(found.values()) if isinstance(found, dict) else found)


def labels_to(curve: Sequence[Row], goal: float) -> float:
    """Labels at which a learning curve first comes down to an error, by lines in a log-log plot; infinite if it does not."""
    for one, other in pairwise(curve):
        if error(other) <= goal <= error(one):
            share = 0.0 if error(one) == error(other) else np.log(error(one) / goal) / np.log(error(one) / error(other))
            return float(one["labels"] * (other["labels"] / one["labels"]) ** share)
    return np.inf


def labels_over(curve: Sequence[Row], random: Sequence[Row]) -> float:
    """Labels of a rule over those that random choice needs for the same error: the larger one of the two last errors."""
    if curve is random:
        return 1.0  # even where its error has grown, and is never come down to
    if error(curve[-1]) <= error(random[-1]):
        return labels_to(curve, error(random[-1])) / random[-1]["labels"]
    return float(curve[-1]["labels"] / labels_to(random, error(curve[-1])))


def compare(found: Sequence[Row], kind: str) -> None:
    """The end of each curve, and how it compares with random choice, seed by seed."""
    curves: dict[tuple[str, str], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        curves[row[kind], row["rule"]][row["seed"]].append(row)
    print(f"| {kind} | rule | seeds | labels | force MAE, meV/Å | error over random, % | labels over random, % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (system, rule), mine in curves.items():
        random = curves[system, "random"]
        both = [(curve, random[seed]) for seed, curve in mine.items() if seed in random]
        cells = [
            interval([error(curve[-1]) for curve in mine.values()], 1e3),
            interval([error(curve[-1]) / error(other[-1]) - 1 for curve, other in both], 100, 1) if both else "",
            interval([labels_over(curve, other) - 1 for curve, other in both], 100) if both else "",
        ]
        labels = interval([float(curve[-1]["labels"]) for curve in mine.values()])
        print(f"| {system} | {rule} | {len(mine)} | {labels} | {' | '.join(cells)} |")


def unlabelled(found: Sequence[Row]) -> None:
    """How many MD steps went without a label."""
    per_rule: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        per_rule[row["oracle"], row["rule"]].append(row)
    print("| oracle | rule | MD steps | labels | steps without a label, % |\n| --- | --- | --- | --- | --- |")
    for (oracle, rule), mine in per_rule.items():
        steps = sum(row["steps"] for row in mine)
        asked = sum(row["labels"] for row in mine if row["steps"] == 0) - sum(row["labels"] for row in mine if row["round"] == 0)
        print(f"| {oracle} | {rule} | {steps} | {asked} | {100 * (1 - asked / steps):.2f} |")


def coverages(found: Sequence[Mapping[str, Any]]) -> None:
    print("| system | quantity | frames | exchangeable frames, % (95 % of the divisions) | false alarms, % | another kind, % |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in found:
        share, low, high, alarms, other = (100 * row[name] for name in ("share", "low", "high", "alarms", "elsewhere"))
        limits = f"{share:.1f} ({low:.0f} to {high:.0f})"
        print(f"| {row['system']} | {row['quantity']} | {row['from']:.0f} | {limits} | {alarms:.1f} | {other:.1f} |")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results"
    compare(rows(folder / "pools.jsonl"), "system")
    print()
    compare(rows(folder / "loops.jsonl"), "oracle")
    print()
    unlabelled(rows(folder / "loops.jsonl"))
    print()
    coverages(rows(folder / "coverage.jsonl"))

"""Tables of what `pools.py` and `loops.py` have measured so far, with 95 % intervals over seeds.

python benchmarks/selection/tables.py [FOLDER of pools.jsonl and loops.jsonl]
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from rules import RULES
from scipy.stats import t as student_t


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interval(values: list[float], scale: float = 1.0, digits: int = 0) -> str:
    """Mean, and its 95 % interval by Student's t where there are several seeds."""
    x = scale * np.array(values)
    if len(x) < 2:
        return f"{x.mean():.{digits}f}"
    half = student_t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():.{digits}f} ± {half:.{digits}f}"


def pools(found: list[dict[str, Any]]) -> None:
    """Error at the end of each curve, and its ratio to random selection, seed by seed."""
    last: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in found:
        known = last[row["system"], row["rule"]].get(row["seed"])
        if known is None or row["round"] > known["round"]:
            last[row["system"], row["rule"]][row["seed"]] = row
    print("| system | seeds | rule | labels | force MAE, meV/Å | over random, % |\n| --- | --- | --- | --- | --- | --- |")
    for system in sorted({system for system, _ in last}):
        random = last[system, "random"]
        for rule in RULES:
            mine = last[system, rule]
            mae = interval([row["force_mae"] for row in mine.values()], 1e3)
            ratio = interval([row["force_mae"] / random[seed]["force_mae"] - 1 for seed, row in mine.items()], 100, 1)
            labels = interval([float(row["labels"]) for row in mine.values()])
            print(f"| {system} | {len(mine)} | {rule} | {labels} | {mae} | {ratio} |")


def loops(found: list[dict[str, Any]]) -> None:
    """Labels until the target was met, round by round for each seed."""
    last: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    steps: dict[tuple[str, str], int] = defaultdict(int)
    for row in found:
        last[row["oracle"], row["rule"]][row["seed"]] = row
        steps[row["oracle"], row["rule"]] += row["steps"]
    print("| oracle | rule | labels to the target, by seed | last force MAE, meV/Å | MD steps without a label |")
    print("| --- | --- | --- | --- | --- |")
    for (oracle, rule), mine in sorted(last.items()):
        labels = ", ".join(f"{row['labels']}" if row["met"] else f"> {row['labels']}" for row in mine.values())
        errors = "; ".join(
            f"{t}: {interval([row['force_mae'][t] for row in mine.values()], 1e3)}"
            for t in next(iter(mine.values()))["force_mae"]
        )
        asked = sum(row["labels"] - 14 for row in mine.values())
        share = 1 - asked / steps[oracle, rule] if steps[oracle, rule] else 1.0
        print(f"| {oracle} | {rule} | {labels} | {errors} | {share:.1%} |")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results"
    pools(rows(folder / "pools.jsonl"))
    print()
    loops(rows(folder / "loops.jsonl"))

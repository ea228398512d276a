"""Long measurements in parts: what is in the results file already is not measured again."""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of the options that all have."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--seeds", type=int, default=5)
    found.add_argument("--minutes", type=float, default=1e9, help="begin nothing new after so long")
    return found


def complete(
    arguments: argparse.Namespace, key: Sequence[str], jobs: Mapping[tuple[Any, ...], Callable[[], Iterable[Row]]]
) -> None:
    """Run, in order, the jobs that no row of the file has the `key` of; the rows of a job are kept all or none."""
    torch.set_num_threads(1)
    began = time.monotonic()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    done = {tuple(row[name] for name in key) for row in map(json.loads, lines)}
    for job, rows in jobs.items():
        if job in done or time.monotonic() - began > 60 * arguments.minutes:
            continue
        found = list(rows())
        with arguments.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        named = ", ".join(f"{name} {value}" for name, value in zip(key, job, strict=True))
        print(f"{named}: {found[-1]['labels']} labels, {time.monotonic() - began:.0f} s", flush=True)

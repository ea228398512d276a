"""Options that several commands share."""

import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from al_leignn.core import Decision


CampaignDir = Annotated[Path, typer.Argument(help="campaign folder [default: here]", metavar="[DIR]", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
Workers = Annotated[int | None, typer.Option(help="processes to use [default: one per core]", min=1)]


def answer_at_once() -> None:
    """Save what starting NumPy's threads and collecting garbage costs, for commands that look and compute nothing."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()


def default_workers() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def exit_code(decision: "Decision | None") -> int:
    """0: converged or still going; 3: stalled or budget spent."""
    from al_leignn.core import DecisionKind

    return 3 if decision is not None and decision.kind in (DecisionKind.STALLED, DecisionKind.BUDGET_SPENT) else 0

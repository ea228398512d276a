"""The history of a campaign, read from its manifests: what the committee knew, iteration by iteration, walker by walker."""

from typing import Any

import numpy as np

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.sampling import load_samples
from al_leignn.campaign.state import published_items
from al_leignn.converge import IterationSummary
from al_leignn.core import Stage, StageRequest
from al_leignn.store import Manifest, read_manifest


def summaries(layout: Layout, iterations: int) -> list[IterationSummary]:
    """What the stop decision looks at, for iterations 0 .. iterations - 1 (all of them validated)."""
    found = []
    labels, core_seconds = 0, 0.0
    for i in range(iterations):
        selection = result(layout, Stage.SELECT, i)
        validation = result(layout, Stage.VALIDATE, i)
        fresh = validation["fresh"] or {}
        verdicts = selection["verdicts"]
        pool = sum(verdicts.values())
        labels += int(selection["labels"])
        core_seconds += label_cost(layout, i)["core_s"]
        found.append(
            IterationSummary(
                iteration=i,
                n_labels=labels,
                core_hours=core_seconds / 3600,
                fresh_force_mae=fresh.get("force_mae"),
                fresh_energy_mae=fresh.get("energy_mae"),
                fresh_n=fresh.get("n_frames", 0),
                accurate_share=verdicts["accurate"] / pool if pool else None,
                coverage=(validation["coverage"] or {}).get("share"),
                gates={gate["name"]: gate["passed"] for gate in validation["gates"]},
                walkers_stopped=sum(bool(w["stopped"]) for w in walkers(layout, i)),
            )
        )
    return found


def result(layout: Layout, stage: Stage, iteration: int, item: int = 0) -> dict[str, Any]:
    """Results of a published item; empty where nothing is published yet."""
    manifest = read_manifest(layout.item(StageRequest(stage, iteration, item)))
    return {} if manifest is None else manifest.result


def items(layout: Layout, stage: Stage, iteration: int) -> list[Manifest]:
    """Manifests of the published items of a stage, in order."""
    numbers = published_items(layout.stage(iteration, stage))
    found = [read_manifest(layout.item(StageRequest(stage, iteration, n))) for n in numbers]
    return [manifest for manifest in found if manifest is not None]


def walkers(layout: Layout, iteration: int) -> list[dict[str, Any]]:
    """Reports of the iteration's walkers: walker, temperature, steps, stopped (reason or empty)."""
    return [walker for manifest in items(layout, Stage.EXPLORE, iteration) for walker in manifest.result["walkers"]]


def label_cost(layout: Layout, iteration: int) -> dict[str, float]:
    """Labels asked for, computed (not found in the store) and failed, and the core-seconds they cost."""
    labels = items(layout, Stage.LABEL, iteration)
    return {
        "asked": len(labels),
        "computed": sum(m.times.get("paid", 0.0) for m in labels),
        "failed": sum(not m.result["accepted"] for m in labels),
        "core_s": sum(m.times.get("label_cpu_s", 0.0) for m in labels),
    }


def walker_rows(layout: Layout, iterations: int) -> list[dict[str, Any]]:
    """The uncertainty history: one row per iteration and walker that ran MD.

    Deviations and thresholds in eV/Å; `bound_90` is the calibrated bound on the worst atom's force error at the 90 %
    quantile of the deviation; errors and coverage are those of the iteration's fresh labels.
    """
    rows = []
    for i in range(1, iterations):
        before = result(layout, Stage.VALIDATE, i - 1)
        validation = result(layout, Stage.VALIDATE, i)
        trust = before["trust"]
        fresh = validation.get("fresh") or {}
        covered = validation.get("coverage") or {}
        for explored in items(layout, Stage.EXPLORE, i):
            samples = load_samples(layout.item(StageRequest(Stage.EXPLORE, i, explored.item)))
            for walker in explored.result["walkers"]:
                mine = samples["max_deviation"][samples["walker"] == walker["walker"]]
                rows.append(
                    {"iteration": i}
                    | walker
                    | deviation_summary(mine, trust["lo"], trust["hi"], before["calibration"])
                    | {"fresh_force_mae": fresh.get("force_mae"), "fresh_energy_mae": fresh.get("energy_mae")}
                    | {"coverage": covered.get("share")}
                )
    return rows


def deviation_summary(deviations: np.ndarray, lo: float, hi: float, calibration: dict[str, Any] | None) -> dict[str, Any]:
    """Quantiles, calibrated bound and verdict shares of one walker's deviations."""
    n = len(deviations)
    median, q90, largest = (float(np.quantile(deviations, q)) for q in (0.5, 0.9, 1.0)) if n else (np.nan,) * 3
    factor = None if calibration is None else calibration["factor"]
    return {
        "frames": n,
        "median": median,
        "q90": q90,
        "max": largest,
        "bound_90": None if factor is None else factor * q90,
        "accurate": float(np.mean(deviations < lo)) if n else np.nan,
        "candidate": float(np.mean((deviations >= lo) & (deviations < hi))) if n else np.nan,
        "failed": float(np.mean(~(deviations < hi))) if n else np.nan,
        "trust_lo": lo,
        "trust_hi": hi,
    }

"""The history of a campaign, read from its manifests: what the committee knew, iteration by iteration, walker by walker.

Everything that looks at a campaign (status, tables, plots, the report, the stop decision) reads it here. Only numpy and the
manifests are needed, so that `status` answers at once.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from al_leignn.campaign.item import published
from al_leignn.campaign.layout import CONFIG, POOL, PREDICTIONS, SAMPLES, Layout
from al_leignn.campaign.schedule import plan_of
from al_leignn.campaign.state import decision_of, item_folders, label_verdict
from al_leignn.campaign.uncertainty import deviation_summary, judged_deviations, uncertainty_table
from al_leignn.converge import IterationSummary, Observables
from al_leignn.core import Decision, LabelVerdict, Reason, Stage, StageRequest
from al_leignn.errors import DamagedArtifactError
from al_leignn.shapes import Float
from al_leignn.store import Manifest, read_manifest

CAUTIOUS = 0.9
"""Budgets are planned with this quantile of what labels cost, not with their median, ..."""

CAUTION = 1.1
"""... and with so much more than that."""

GROSS = 2.0
"""A label that was ended for the budget is taken to need so many times what it was allowed."""


class LabelCost(NamedTuple):
    """Labels asked for and what became of them (accepted + quarantined + rejected = asked), and what they cost."""

    asked: int
    accepted: int
    quarantined: int
    rejected: int
    computed: int
    """Paid for, not found in the store."""
    core_s: float
    """Core-seconds."""


class StageCost(NamedTuple):
    """What the published items of one stage took; seconds, summed over items."""

    items: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class IterationRecord:
    """All that one iteration has published so far; empty or None where it has not come to it yet."""

    iteration: int
    walkers: list[dict[str, Any]]
    """walker, temperature (highest target, K), condition (in words), steps, stopped (reason) and recovery, both mostly empty."""
    schedule: str
    """Why these conditions were explored; empty if it is always all of them."""
    pool: int
    """Frames explored."""
    verdicts: dict[str, int]
    """Frames of the pool by verdict; all 0 for seeds, which no committee has seen."""
    fates: dict[str, int]
    """Frames of the pool by fate."""
    disagreements: dict[str, int]
    """Frames of the pool of which committee and novelty say different things (`select.fate.Selection`)."""
    trust: dict[str, float | None]
    """lo and hi in force at the selection, eV/Å."""
    labels: LabelCost
    refused: dict[str, int]
    """Quarantined and rejected labels by reason."""
    train_total: int | None
    """Training frames after this iteration."""
    fresh_total: int | None
    """Frames held back for measuring, after this iteration."""
    fresh: dict[str, Any] | None
    """Errors of the committee that drove the MD on this iteration's fresh labels (`validate.metrics.Metrics`)."""
    chosen: dict[str, Any] | None
    """Errors of the same committee on the frames chosen for training from the same pool, before they were trained on."""
    test: dict[str, Any] | None
    """Errors of the committee trained in this iteration on all fresh labels so far."""
    coverage: dict[str, Any] | None
    """How the last calibration's bound held on the new fresh labels (`calibration.Coverage`, and the share)."""
    calibration: dict[str, Any] | None
    """Of the worst atom of a frame (`calibration.Calibration`)."""
    quantities: dict[str, dict[str, Any]]
    """unit, calibration and coverage of every quantity, the worst atom of a frame first."""
    gates: list[dict[str, Any]]
    """Physics gates (`validate.physics.Gate`)."""
    observables: list[dict[str, str]]
    """Of each AIMD reference its name, the verdict, and what it is due to in words."""
    stability: dict[str, str] | None
    """The verdict on MD beside that of the committee before, and what it is due to in words; None where it was not asked for."""
    decision: Decision | None
    costs: dict[Stage, StageCost]

    @property
    def steps(self) -> int:
        """MD steps of all walkers."""
        return sum(int(walker["steps"]) for walker in self.walkers)

    @property
    def stopped(self) -> dict[str, int]:
        """Walkers stopped before their end, by reason."""
        return dict(Counter(str(walker["stopped"]) for walker in self.walkers if walker["stopped"]))


class WalkerRow(NamedTuple):
    """The uncertainty history: one row per iteration and walker that ran MD. Deviations and errors in eV/Å."""

    iteration: int
    walker: int
    temperature: float
    """Highest target, K."""
    condition: str
    """Targets in words."""
    steps: int
    """MD steps done."""
    stopped: str
    """Why it was stopped before its end; empty if it was not."""
    recovery: str
    """What happened before, if it had to start again under safer conditions."""
    frames: int
    """Frames looked at; the quantiles and shares below are over them."""
    median: float | None
    """Quantiles of the model deviation."""
    q90: float | None
    max: float | None
    bound_90: float | None
    """Calibrated bound on the worst atom's force error at the 90 % quantile of the deviation."""
    accurate: float | None
    """Share of the frames with this verdict, before any filter."""
    candidate: float | None
    failed: float | None
    trust_lo: float | None
    trust_hi: float | None
    fresh_force_mae: float | None
    """Of the committee that drove this MD, on the fresh labels of this iteration."""
    fresh_energy_mae: float | None
    """eV/atom."""
    coverage: float | None
    """Share of those labels within the bound that the last calibration gave."""
    coverage_low: float | None
    """95 % limits of that share."""
    coverage_high: float | None
    nominal: float | None
    """What that calibration promised."""


def label_needs(label: Manifest) -> float:
    """Core-seconds that a label takes: what it took, or, ended for the budget, more than it was allowed."""
    allowed = label.times.get("allowed_s", 0.0) if label.result["reason"] == Reason.BUDGET else 0.0
    return max(label.times["label_cpu_s"], GROSS * allowed)


@dataclass(frozen=True)
class Trace:
    """The deviation along one walker's trajectory."""

    iteration: int
    walker: int
    temperature: float
    """Target, K."""
    steps: int
    """MD steps the walker did."""
    step: Float[np.ndarray, " frames"]
    deviation: Float[np.ndarray, " frames"]
    """Frame maxima, eV/Å; relative ones where that criterion was in force."""


class History:
    """Reads a campaign, each manifest once. What is not published, or damaged, reads as absent; `damaged` names the latter."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.damaged: list[str] = []
        self._manifests: dict[StageRequest, Manifest | None] = {}
        self._items: dict[tuple[Stage, int], list[Manifest]] = {}

    @cached_property
    def iterations(self) -> int:
        """Number of iterations begun."""
        count = 0
        while (self.layout.iteration(count) / CONFIG).exists():
            count += 1
        return count

    def manifest(self, stage: Stage, iteration: int, item: int = 0) -> Manifest | None:
        request = StageRequest(stage, iteration, item)
        if request not in self._manifests:
            try:
                self._manifests[request] = read_manifest(self.layout.item(request))
            except DamagedArtifactError as error:
                self.damaged.append(str(error))
                self._manifests[request] = None
        return self._manifests[request]

    def result(self, stage: Stage, iteration: int, item: int = 0) -> dict[str, Any]:
        """Results of a published item; empty where there are none."""
        manifest = self.manifest(stage, iteration, item)
        return {} if manifest is None else manifest.result

    def before(self, iteration: int) -> dict[str, Any]:
        """Validation results in force while an iteration explores and selects: those of the iteration before."""
        return self.result(Stage.VALIDATE, iteration - 1) if iteration > 0 else {}

    def items(self, stage: Stage, iteration: int) -> list[Manifest]:
        """Manifests of the published items of a stage, in order."""
        if (stage, iteration) not in self._items:
            found = [self.manifest(stage, iteration, n) for n in item_folders(self.layout.stage(iteration, stage))]
            self._items[stage, iteration] = [manifest for manifest in found if manifest is not None]
        return self._items[stage, iteration]

    def walkers(self, iteration: int) -> list[dict[str, Any]]:
        """Reports of an iteration's walkers: walker, temperature, steps, stopped (reason or empty)."""
        return [walker for manifest in self.items(Stage.EXPLORE, iteration) for walker in manifest.result["walkers"]]

    def record(self, iteration: int) -> IterationRecord:
        """Everything about one iteration except its frames."""
        selection = self.result(Stage.SELECT, iteration)
        labels = self.items(Stage.LABEL, iteration)
        collected = self.result(Stage.COLLECT, iteration)
        validation = self.result(Stage.VALIDATE, iteration)
        decision = self.result(Stage.CONVERGE, iteration)
        return IterationRecord(
            iteration=iteration,
            walkers=self.walkers(iteration),
            schedule=str(selection.get("schedule", "")),
            pool=int(selection.get("pool", 0)),
            verdicts=selection.get("verdicts", {}),
            fates=selection.get("fates", {}),
            disagreements=selection.get("disagreements", {}),
            trust=selection.get("trust", {"lo": None, "hi": None}),
            labels=_label_cost(labels, collected),
            refused=collected.get("refused") or _refused(labels),
            train_total=collected.get("train_total"),
            fresh_total=collected.get("fresh_total"),
            fresh=validation.get("fresh"),
            chosen=validation.get("chosen"),
            test=validation.get("test"),
            coverage=validation.get("coverage"),
            calibration=validation.get("calibration"),
            quantities=uncertainty_table(validation),
            gates=validation.get("gates", []),
            observables=validation.get("observables", []),
            stability=validation.get("stability"),
            decision=decision_of(decision) if decision else None,
            costs={stage: _stage_cost(self.items(stage, iteration)) for stage in Stage},
        )

    def records(self) -> list[IterationRecord]:
        return [self.record(i) for i in range(self.iterations)]

    def summaries(self, iterations: int) -> list[IterationSummary]:
        """What the stop decision looks at, for iterations 0 .. iterations - 1.

        Raises
        ------
        RunError
            If one of them is incomplete or damaged: a decision is never taken on a part of the facts.
        """
        found = []
        labels, core_seconds, costs = 0, 0.0, [0.0]
        for i in range(iterations):
            selection = published(self.layout, StageRequest(Stage.SELECT, i, 0)).result
            paid = [published(self.layout, StageRequest(Stage.LABEL, i, n)) for n in range(int(selection["labels"]))]
            validation = published(self.layout, StageRequest(Stage.VALIDATE, i, 0)).result
            fresh = validation["fresh"] or {}
            verdicts = selection["verdicts"]
            plan = plan_of(self.layout, self.layout.config_of(i), i)
            pool = sum(verdicts.values())
            labels += len(paid)
            core_seconds += _label_cost(paid, {}).core_s
            costs += [label_needs(m) for m in paid if m.times.get("paid")]
            found.append(
                IterationSummary(
                    iteration=i,
                    n_labels=labels,
                    core_hours=core_seconds / 3600,
                    next_label_core_hours=CAUTION * float(np.quantile(costs, CAUTIOUS)) / 3600,
                    fresh_force_mae=fresh.get("force_mae"),
                    fresh_energy_mae=fresh.get("energy_mae"),
                    fresh_n=fresh.get("n_frames", 0),
                    accurate_share=verdicts["accurate"] / pool if pool else None,
                    coverage=(validation["coverage"] or {}).get("share"),
                    drift=(validation["coverage"] or {}).get("drift"),
                    observables=_observables_of(validation.get("observables")),
                    stability=_observables_of([stability] if (stability := validation.get("stability")) else None),
                    gates={gate["name"]: gate["passed"] for gate in validation["gates"]},
                    walkers_stopped=sum(bool(walker["stopped"] or walker.get("recovery")) for walker in self.walkers(i)),
                    explored=plan.walkers if i > 0 else (),
                    climb=(plan.complete, plan.why) if i > 0 and plan.why else None,
                )
            )
        return found

    def traces(self, iteration: int) -> list[Trace]:
        """Deviations along each walker's trajectory, in the order of the walkers; none for seeds."""
        found = []
        scale = self.before(iteration).get("trust", {}).get("force_scale")
        for explored in self.items(Stage.EXPLORE, iteration) if iteration > 0 else []:
            names = ["walker", "step", "max_deviation", *([] if scale is None else ["per_atom", "mean_force", "atoms"])]
            samples = self.samples(iteration, explored.item, *names)
            judged = samples["max_deviation"] if scale is None else judged_deviations(samples, scale)
            for walker in explored.result["walkers"]:
                mine = samples["walker"] == walker["walker"]
                found.append(
                    Trace(
                        iteration=iteration,
                        walker=int(walker["walker"]),
                        temperature=float(walker["temperature"]),
                        steps=int(walker["steps"]),
                        step=samples["step"][mine].astype(float),
                        deviation=judged[mine],
                    )
                )
        return found

    def walker_rows(self) -> list[WalkerRow]:
        """The uncertainty history, by iteration and walker."""
        rows = []
        for i in range(1, self.iterations):
            before = self.before(i)
            validation = self.result(Stage.VALIDATE, i)
            fresh, held = validation.get("fresh") or {}, validation.get("coverage") or {}
            for report, trace in zip(self.walkers(i), self.traces(i), strict=True):
                row = WalkerRow(
                    iteration=i,
                    walker=trace.walker,
                    temperature=trace.temperature,
                    steps=trace.steps,
                    stopped=str(report["stopped"]),
                    condition=str(report.get("condition", f"{trace.temperature:g} K")),
                    recovery=str(report.get("recovery", "")),
                    fresh_force_mae=fresh.get("force_mae"),
                    fresh_energy_mae=fresh.get("energy_mae"),
                    coverage=held.get("share"),
                    coverage_low=held.get("low"),
                    coverage_high=held.get("high"),
                    nominal=(before.get("calibration") or {}).get("nominal"),
                    **deviation_summary(trace.deviation, before.get("trust"), before.get("calibration")),
                )
                rows.append(row)
        return rows

    def samples(self, iteration: int, item: int, *names: str) -> dict[str, Any]:
        """Arrays that an explore item has stored (`sampling.explore`); all of them where none is named."""
        return load_arrays(self.layout.item(StageRequest(Stage.EXPLORE, iteration, item)) / SAMPLES, *names)

    def place(self, iteration: int, index: int) -> tuple[int, int] | None:
        """Explore item that holds a frame of the pool, and its index there; None for frames that were not explored."""
        for explored in self.items(Stage.EXPLORE, iteration):
            if index < explored.result["frames"]:
                return explored.item, index
            index -= int(explored.result["frames"])
        return None

    def pool(self, iteration: int) -> dict[str, Any] | None:
        """uid, fate, verdict and novelty of every frame of the pool; None before the selection."""
        folder = self.layout.item(StageRequest(Stage.SELECT, iteration, 0))
        return load_arrays(folder / POOL) if self.manifest(Stage.SELECT, iteration) else None

    def predictions(self, iteration: int) -> dict[str, Any] | None:
        """Predictions of the committee of an iteration for all fresh labels so far; None before its validation."""
        folder = self.layout.item(StageRequest(Stage.VALIDATE, iteration, 0))
        return load_arrays(folder / PREDICTIONS) if self.manifest(Stage.VALIDATE, iteration) else None

    def last_predictions(self) -> tuple[int, dict[str, Any]] | None:
        """The newest predictions and the iteration they are from."""
        for i in reversed(range(self.iterations)):
            found = self.predictions(i)
            if found is not None:
                return i, found
        return None


def _observables_of(compared: Sequence[Mapping[str, str]] | None) -> Observables | None:
    if not compared:
        return None
    return Observables(tuple(one["verdict"] for one in compared), "; ".join(one["words"] for one in compared))


def load_arrays(path: Path, *names: str) -> dict[str, Any]:
    """The named arrays of an .npz file; all of them where none is named. Raises `DamagedArtifactError`."""
    try:
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in names or data.files}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DamagedArtifactError(f"damaged arrays: {error}", where=str(path), fix="the next run makes them again") from None


def _label_cost(labels: Sequence[Manifest], collected: dict[str, Any]) -> LabelCost:
    """Verdicts are those of the collection, which sees all labels together, as soon as there is one."""
    verdicts = collected.get("verdicts") or Counter(label_verdict(m.result).value for m in labels)
    return LabelCost(
        asked=len(labels),
        accepted=verdicts.get("accepted", 0),
        quarantined=verdicts.get("quarantined", 0),
        rejected=verdicts.get("rejected", 0),
        computed=round(sum(m.times.get("paid", 0.0) for m in labels)),
        core_s=sum(m.times.get("label_cpu_s", 0.0) for m in labels),
    )


def _refused(labels: Sequence[Manifest]) -> dict[str, int]:
    return dict(Counter(str(m.result["reason"]) for m in labels if label_verdict(m.result) is not LabelVerdict.ACCEPTED))


def _stage_cost(items: Sequence[Manifest]) -> StageCost:
    return StageCost(
        items=len(items),
        wall_s=sum(m.times.get("wall_s", 0.0) for m in items),
        cpu_s=sum(m.times.get("cpu_s", 0.0) for m in items),
    )

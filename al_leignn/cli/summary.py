"""One iteration on one screen: what was explored, what was labelled, how good the committee is, and the decision."""

from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from al_leignn.campaign.history import History, IterationRecord
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.uncertainty import deviation_summary
from al_leignn.config import ConvergeConfig
from al_leignn.core import Decision, DecisionKind, Stage
from al_leignn.report.numbers import number, percent, seconds

DECISION_STYLES = {
    DecisionKind.CONTINUE: "cyan",
    DecisionKind.CONVERGED: "green",
    DecisionKind.STALLED: "yellow",
    DecisionKind.BUDGET_SPENT: "yellow",
}


def iteration_summary(layout: Layout, iteration: int) -> RenderableType:
    """Everything published of an iteration so far, as a panel."""
    history = History(layout)
    record = history.record(iteration)
    config = layout.config_of(iteration).converge
    lines: dict[str, RenderableType | None] = {
        "schedule": record.schedule,
        "explored": _explored(record),
        "deviation": _deviation(history, record),
        "labels": _labels(record),
        "fresh labels": _errors(record, config),
        "uncertainty": _bounds(record),
        "physics": _physics(record),
        "beside AIMD": "\n".join(f"{one['reference']}: {one['verdict']}" for one in record.observables),
        "beside the committee before": "" if record.stability is None else record.stability["verdict"],
        "spent": _spent(record),
        "decision": None if record.decision is None else decision_text(record.decision),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, line in lines.items():
        if line:
            table.add_row(name, line)
    return Panel(table, title=f"iteration {iteration}", title_align="left")


def decision_text(decision: Decision) -> Text:
    return Text.assemble((decision.kind.value, f"bold {DECISION_STYLES[decision.kind]}"), "  ", decision.reason)


def _explored(record: IterationRecord) -> str:
    if not record.walkers:
        return f"{record.pool} seeds (rattled, strained, hot)" if record.pool else ""
    text = f"{record.steps} MD steps of {len(record.walkers)} walkers"
    if record.stopped:
        reasons = ", ".join(f"{n} for {reason}" for reason, n in record.stopped.items())
        text += f", stopped early: {reasons}"
    for walker in record.walkers:
        if walker.get("recovery"):
            text += f"\nwalker {walker['walker']}: {walker['recovery']}"
    if not record.pool:
        return text
    shares = ", ".join(f"{n} {verdict} ({percent(n / record.pool)})" for verdict, n in record.verdicts.items())
    text = f"{text}\n{record.pool} frames: {shares}"
    if any(record.disagreements.values()):
        text += f"; {', '.join(f'{n} {kind}' for kind, n in record.disagreements.items())}"
    return text


def _deviation(history: History, record: IterationRecord) -> str:
    traces = history.traces(record.iteration)
    if not traces:
        return ""
    found = deviation_summary(np.concatenate([trace.deviation for trace in traces]), None, None)
    if found["median"] is None:
        return "no finite deviation"
    text = f"median {found['median']:.3g}, 90 % below {found['q90']:.3g}, largest {found['max']:.3g} eV/Å"
    lo, hi = record.trust["lo"], record.trust["hi"]
    return text if lo is None else f"{text} (trusted below {lo:.3g}, dropped from {hi:.3g})"


def _labels(record: IterationRecord) -> str:
    cost = record.labels
    if not cost.asked:
        return ""
    text = f"{cost.asked} asked = {cost.accepted} accepted + {cost.quarantined} quarantined + {cost.rejected} rejected"
    if record.refused:
        text += " (" + ", ".join(f"{n} {reason}" for reason, n in record.refused.items()) + ")"
    text += f"; {cost.computed} computed in {seconds(cost.core_s)} of one core"
    if record.train_total is not None:
        text += f"\ndata set: {record.train_total} for training, {record.fresh_total} fresh"
    return text


def _errors(record: IterationRecord, config: ConvergeConfig) -> str:
    """Errors of the committee that ran the MD; for the seeds, of the first committee."""
    found, whose = (record.fresh, "") if record.fresh else (record.test, " (seeds)")
    if not found:
        return ""
    lines = [
        f"force MAE {_force_error(found)} on {found['n_frames']} frames{whose}; target {config.target_force_error:.3g}",
        f"energy MAE {number(found['energy_mae'])} eV/atom; target {config.target_energy_error:.3g}",
    ]
    if record.chosen:
        lines.append(f"beside them, on the {record.chosen['n_frames']} frames chosen for training: {_force_error(record.chosen)}")
    return "\n".join(lines)


def _force_error(metrics: dict[str, Any]) -> str:
    limits = ""
    if metrics["force_mae_low"] is not None:
        limits = f" (95 %: {number(metrics['force_mae_low'])} to {number(metrics['force_mae_high'])})"
    return f"{number(metrics['force_mae'])}{limits} eV/Å"


def _bounds(record: IterationRecord) -> RenderableType:
    """Of every quantity: how the last bound held on the new labels, and the new factor."""
    lines = []
    for name, found in record.quantities.items():
        held, new = found["coverage"], found["calibration"]
        line = Text(f"{new['nominal']:.0%} bound on the {name}: ")
        if held is not None:
            limits = f"{percent(held['low'])} to {percent(held['high'])}"
            share = f"{held['covered']} of {held['n']} ({percent(held['share'])}; 95 %: {limits})"
            line.append(f"held for {share}")
            line.append(" DRIFT" if held["drift"] else "", "bold red")
            line.append("; now ")
        line.append("unbounded" if new["factor"] is None else f"{new['factor']:.2f} × deviation")
        line.append(f", from {new['n']}{'' if new['valid'] else ' (not valid yet)'}")
        lines.append(line)
    return Text("\n").join(lines)


def _physics(record: IterationRecord) -> str:
    failed = [f"{gate['name']} {number(gate['value'])} {gate['unit']}" for gate in record.gates if not gate["passed"]]
    if failed:
        return "failed: " + ", ".join(failed)
    return f"{len(record.gates)} gates passed" if record.gates else ""


def _spent(record: IterationRecord) -> str:
    costs = {stage: cost.cpu_s for stage, cost in record.costs.items() if cost.items}
    text = ", ".join(f"{stage.value} {seconds(cpu)}" for stage, cpu in costs.items() if stage is not Stage.CONVERGE)
    return f"{text} (one core)" if text else ""

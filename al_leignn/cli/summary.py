"""One iteration on one screen: what was explored, what was labelled, how good the committee is, and the decision."""

import numpy as np
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from al_leignn.campaign.history import History, IterationRecord, deviation_summary
from al_leignn.campaign.layout import Layout
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
    lines = {
        "explored": _explored(record),
        "deviation": _deviation(history, record),
        "labels": _labels(record),
        "fresh labels": _errors(record, config),
        "bound": _bound(record),
        "physics": _physics(record),
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
    if not record.pool:
        return text
    shares = ", ".join(f"{n} {verdict} ({percent(n / record.pool)})" for verdict, n in record.verdicts.items())
    return f"{text}\n{record.pool} frames: {shares}"


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
    force = f"force MAE {number(found['force_mae'])}"
    if found["force_mae_low"] is not None:
        force += f" (95 %: {number(found['force_mae_low'])} to {number(found['force_mae_high'])})"
    return (
        f"{force} eV/Å on {found['n_frames']} frames{whose}; target {config.target_force_error:.3g}\n"
        f"energy MAE {number(found['energy_mae'])} eV/atom; target {config.target_energy_error:.3g}"
    )


def _bound(record: IterationRecord) -> str:
    parts = []
    if record.coverage:
        found = record.coverage
        limits = f"{percent(found['low'])} to {percent(found['high'])}"
        parts.append(f"held for {found['covered']} of {found['n']} fresh labels ({percent(found['share'])}, 95 %: {limits})")
        if found["drift"]:
            parts.append("DRIFT: fewer than chance explains")
    if record.calibration:
        found = record.calibration
        factor = "unbounded" if found["factor"] is None else f"{found['factor']:.2f}"
        state = "" if found["valid"] else ", not valid yet"
        parts.append(f"now {factor} times the deviation for {percent(found['nominal'])}, from {found['n']} labels{state}")
    return "\n".join(parts)


def _physics(record: IterationRecord) -> str:
    failed = [f"{gate['name']} {number(gate['value'])} {gate['unit']}" for gate in record.gates if not gate["passed"]]
    if failed:
        return "failed: " + ", ".join(failed)
    return f"{len(record.gates)} gates passed" if record.gates else ""


def _spent(record: IterationRecord) -> str:
    costs = {stage: cost.cpu_s for stage, cost in record.costs.items() if cost.items}
    text = ", ".join(f"{stage.value} {seconds(cpu)}" for stage, cpu in costs.items() if stage is not Stage.CONVERGE)
    return f"{text} (one core)" if text else ""

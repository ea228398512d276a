"""How a campaign looks in the terminal: its state, its history, the life of one frame, the last words of a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import WalkerRow
from al_leignn.campaign.layout import Layout
from al_leignn.cli.summary import decision_text, iteration_summary
from al_leignn.core import Decision
from al_leignn.report.numbers import number, percent, seconds
from al_leignn.select.fate import NOVEL


def decision_view(layout: Layout, decision: Decision | None) -> RenderableType:
    """The last words of a run."""
    shown = layout.root.relative_to(Path.cwd()) if layout.root.is_relative_to(Path.cwd()) else layout.root
    economy = Campaign(layout).status()["md"]
    lines: list[RenderableType] = [] if decision is None else [decision_text(decision)]
    if economy["without_label"] is not None:
        lines.append(f"{percent(economy['without_label'])} of {economy['steps']} MD steps needed no label")
    return Group(*lines, f"next: al-leignn report {shown}")


def _grid(rows: dict[str, RenderableType | None]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    return table


def status_view(campaign: Campaign, found: dict[str, Any]) -> RenderableType:
    labels, data, md, decision = (found[key] for key in ("labels", "data", "md", "decision"))
    stages = [f"{stage} {s['done']}/{s['expected'] or '?'}" for stage, s in found["stages"].items()]
    steps = None if not md["steps"] else f"{md['steps']} steps, {percent(md['without_label'])} of them without a label"
    rows: dict[str, RenderableType | None] = {
        "campaign": f"{found['name']} ({found['folder']})",
        "iteration": "not started" if found["iteration"] is None else f"{found['iteration']}: {', '.join(stages)}",
        "labels": f"{labels['asked']} asked, {labels['computed']} computed: {labels['accepted']} accepted, "
        f"{labels['quarantined']} quarantined, {labels['rejected']} rejected",
        "ledger": _ledger(found["ledger"]),
        "data set": f"{data['train']} frames for training, {data['fresh']} fresh",
        "MD": steps,
        "spent": f"{seconds(sum(found['cpu_s'].values()))} of one core, {seconds(labels['core_s'])} of it on labels",
        "running": found["running"] or "nothing",
    }
    rows |= {f"damaged {n}": Text(text, "red") for n, text in enumerate(found["damaged"], 1)}
    last = [] if decision is None else [iteration_summary(campaign.layout, decision["iteration"])]
    return Group(_grid(rows), *last)


def _ledger(found: dict[str, Any]) -> str | None:
    if found["next_label_core_s"] is None:
        return None
    text = f"{seconds(found['spent_core_s'])} of one core for {found['labels']}; the next is foretold at "
    text += seconds(found["next_label_core_s"])
    if found["saving"]:
        text += f"; DFT at every MD step would have cost {found['saving']:.3g} times as much"
    return text


_WALKER_COLUMNS: dict[str, Callable[[WalkerRow], str]] = {
    "iter": lambda row: str(row.iteration),
    "walker": lambda row: str(row.walker),
    "at": lambda row: row.condition,
    "steps": lambda row: f"{row.steps}{'*' if row.stopped else ''}",
    "median": lambda row: number(row.median),
    "90 %": lambda row: number(row.q90),
    "max": lambda row: number(row.max),
    "bound": lambda row: number(row.bound_90),
    "accur.": lambda row: _share(row.accurate),
    "cand.": lambda row: _share(row.candidate),
    "failed": lambda row: _share(row.failed),
}
_ITERATION_COLUMNS: dict[str, Callable[[WalkerRow], str]] = {
    "iter": lambda row: str(row.iteration),
    "trusted below": lambda row: number(row.trust_lo),
    "dropped from": lambda row: number(row.trust_hi),
    "fresh force MAE": lambda row: number(row.fresh_force_mae),
    "bound for": lambda row: _share(row.nominal),
    "held for": lambda row: _share(row.coverage),
    "95 % limits": lambda row: "-" if row.coverage is None else f"{_share(row.coverage_low)} to {_share(row.coverage_high)}",
}


def history_view(rows: list[WalkerRow]) -> RenderableType:
    if not rows:
        return "no MD yet: the first iteration labels seeds; walkers run from iteration 1"
    first_of_iteration = list({row.iteration: row for row in reversed(rows)}.values())[::-1]
    stops = [f"* iteration {row.iteration}, walker {row.walker}: stopped for {row.stopped}" for row in rows if row.stopped]
    stops += [f"iteration {row.iteration}, walker {row.walker}: {row.recovery}" for row in rows if row.recovery]
    return Group(
        "Model deviation of each walker; bound on the worst atom's force error at its 90 % quantile; eV/Å",
        _table(_WALKER_COLUMNS, rows),
        *stops,
        "\nThresholds in force, and what the fresh labels said; eV/Å",
        _table(_ITERATION_COLUMNS, first_of_iteration),
    )


def _table(columns: dict[str, Callable[[WalkerRow], str]], rows: Sequence[WalkerRow]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def life_view(found: dict[str, Any]) -> RenderableType:
    origin, deviation, label = found["origin"], found["deviation"], found["label"]
    place = f"{origin['kind']}, iteration {origin['iteration']}, walker {origin['walker']}, step {origin['step']}"
    rows: dict[str, RenderableType | None] = {
        "frame": f"{found['uid']}  {found['formula']}, {found['atoms']} atoms",
        "origin": place + (f", {origin['temperature']:g} K" if origin["temperature"] else ""),
        "deviation": None if deviation is None else _deviation(found, deviation),
        "bound": ", ".join(f"{value:.3g} on {name}" for name, value in found["bounds"].items()) or None,
        "novelty": None if found["novelty"] is None else _novelty(found["novelty"]),
        "verdict": found["verdict"],
        "fate": found["fate"],
        "why": found["why"],
        "label": None if label is None else _label(label),
        "cut out": found["cut_out"] and f"labelled were the surroundings of its worst atom only, as {found['cut_out']}",
        "in": {"train": "the training set", "fresh": "the fresh set, never trained on"}.get(found["split"], "no data set"),
    }
    for error in found["errors"]:
        rows[f"error {error['iteration']}"] = (
            f"committee {error['iteration']}: force MAE {error['force_mae']:.3g} eV/Å, "
            f"worst atom {error['max_force_error']:.3g} eV/Å, energy {error['energy_error']:.3g} eV/atom"
        )
    if found["also_in"]:
        rows["also seen"] = ", ".join(f"iteration {s['iteration']} ({s['fate'] or 'not judged yet'})" for s in found["also_in"])
    return _grid(rows)


def _deviation(found: dict[str, Any], deviation: dict[str, Any]) -> str:
    text = f"{deviation['max']:.4g} eV/Å on atom {deviation['worst_atom']} ({deviation['element']}"
    text += f", force {deviation['force']:.3g})" if "force" in deviation else ")"
    if "relative" in deviation:
        text += f"; {deviation['relative']:.4g} relative to the forces"
    if found["thresholds"] is not None:
        text += f"; trusted below {found['thresholds']['lo']:.4g}, dropped from {found['thresholds']['hi']:.4g}"
    return f"{text}; energy {deviation['energy']:.3g} eV/atom"


def _novelty(value: float) -> str:
    kind = "stranger to" if value >= NOVEL else "no stranger to"
    return f"{value:.3g}: {kind} the training set than nine in ten of its own frames"


def _label(label: dict[str, Any]) -> str:
    outcome = " ".join(filter(None, (label["verdict"], label["reason"], label["detail"])))
    cost = f"computed in {seconds(label['core_s'])} of one core" if label["computed"] else "from the label store"
    return f"for {label['purpose']}, {outcome}, {cost}"

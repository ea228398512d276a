"""When to stop: the history of a campaign in, a decision with its reason out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from al_leignn.config import BudgetConfig, ConvergeConfig
from al_leignn.core import Decision, DecisionKind

LOW_COVERAGE = 0.7
"""Below this share of covered fresh labels, a nominal 90 % bound is plainly overconfident."""

WEAKER = " This is the weaker claim: no observable was compared with AIMD, since [converge] names no references."


@dataclass(frozen=True)
class Observables:
    """How MD of the committee compares with AIMD, or with MD of the committee before."""

    verdicts: tuple[str, ...]
    """Of each reference: equivalent, different, undecided, unstable, or unknown."""
    words: str

    @property
    def undecided(self) -> bool:
        """Nothing speaks against it, but the references are too short to tell."""
        return "undecided" in self.verdicts and not {"different", "unstable"} & set(self.verdicts)


@dataclass(frozen=True)
class IterationSummary:
    """What is known after one iteration. None: not measured (iteration 0 has no MD of its own, say)."""

    iteration: int
    n_labels: int
    """Labels asked for so far, failed ones included."""
    core_hours: float
    """Spent on labels so far."""
    next_label_core_hours: float = 0.0
    """What one more label may cost."""
    fresh_force_mae: float | None = None
    """Of this iteration's committee on MD frames it was never trained on, per component, eV/Å."""
    fresh_energy_mae: float | None = None
    """eV/atom."""
    fresh_n: int = 0
    accurate_share: float | None = None
    """Of all frames explored in this iteration."""
    coverage: float | None = None
    """Share of fresh labels within the calibrated bound."""
    drift: bool | None = None
    """Fewer were within it than chance explains (`calibration.Coverage`)."""
    observables: "Observables | None" = None
    """None without a reference."""
    stability: "Observables | None" = None
    """Beside the committee before; None where it was not asked for."""
    gates: dict[str, bool] = field(default_factory=dict)
    """Physics gates by name."""
    walkers_stopped: int = 0
    """Walkers that were stopped for unphysical motion."""
    explored: tuple[int, ...] = ()
    """Walkers at each condition of the schedule: errors of iterations compare where this is the same."""
    climb: tuple[bool, str] | None = None
    """Whether a climb through the conditions had learned all of them before, and where it stood; None without a climb."""


def decide(history: Sequence[IterationSummary], config: ConvergeConfig, budget: BudgetConfig) -> Decision:
    """Decide after the last iteration of `history` (in order).

    CONVERGED when every condition has held for `config.iterations` iterations in a row; else BUDGET_SPENT when a ceiling
    is reached; else STALLED when only longer references are missing, or the error on fresh labels has had no new minimum for
    `config.stall_iterations` iterations; else CONTINUE. What was not measured does not hold. Iteration 0 (seeds) does not count
    against `budget.iterations`.
    """
    if not history:
        return Decision(DecisionKind.CONTINUE, "Nothing has been measured yet.")
    last = history[-1]
    findings = _findings(last, config)
    row = _in_a_row(history, config)
    conditions = {name: holds for name, (holds, _) in findings.items()} | {"in a row": row >= config.iterations}
    if all(conditions.values()):
        reason = f"Converged with {last.n_labels} labels: {_facts(findings, True)}."
        return Decision(DecisionKind.CONVERGED, reason + WEAKER * (last.observables is None), conditions)

    missing = (
        _facts(findings, False)
        or f"every condition holds, but for {row} of the {config.iterations} iterations in a row asked for"
    )
    spent = _spent(last, budget)
    if spent:
        return Decision(DecisionKind.BUDGET_SPENT, f"Budget spent ({spent}) before convergence: {missing}.", conditions)
    if last.observables is not None and last.observables.undecided and _all_but(findings, "observables"):
        reason = f"Stalled: only AIMD is missing: {missing}; make the references longer (`al-leignn aimd`) and run again."
        return Decision(DecisionKind.STALLED, reason, conditions)
    stall = _stall(history, config)
    if stall:
        return Decision(DecisionKind.STALLED, f"Stalled: {stall}; {missing}; {_advice(last, findings)}.", conditions)
    return Decision(DecisionKind.CONTINUE, f"Not converged yet: {missing}.", conditions)


def _findings(summary: IterationSummary, config: ConvergeConfig) -> dict[str, tuple[bool, str]]:
    """Each condition on one iteration: whether it holds, and the fact in words."""
    failed = sorted(name for name, passed in summary.gates.items() if not passed)
    if failed:
        gates = f"failed physics gate(s): {', '.join(failed)}"
    else:
        gates = f"{len(summary.gates)} physics gates passed" if summary.gates else "no physics gate was tried"
    share = summary.accurate_share
    needed = config.accurate_share
    if share is None:
        explored = "no frame was explored"
    else:
        explored = f"{share:.1%} of the explored frames are within the trust level (at least {needed:.1%} needed)"
    n = summary.fresh_n
    climb = {} if summary.climb is None else {"schedule": summary.climb}
    seen = summary.observables
    compared = {} if seen is None else {"observables": (set(seen.verdicts) == {"equivalent"}, seen.words)}
    before = summary.stability
    # AIMD must be long enough to decide; between committees nobody would learn from a longer MD what labels do not tell.
    steady = {} if before is None else {"stable observables": (set(before.verdicts) <= {"equivalent", "undecided"}, before.words)}
    return (
        climb
        | {
            "force error": _error("force error", summary.fresh_force_mae, config.target_force_error, n, "eV/Å"),
            "energy error": _error("energy error", summary.fresh_energy_mae, config.target_energy_error, n, "eV/atom"),
            "calibrated bound": _bound(summary),
            "accurate share": (share is not None and share >= needed, explored),
            "physics gates": (bool(summary.gates) and not failed, gates),
            "stable walkers": (
                summary.walkers_stopped == 0,
                f"{summary.walkers_stopped} walker(s) stopped for unphysical motion"
                if summary.walkers_stopped
                else "no walker stopped",
            ),
        }
        | compared
        | steady
    )


def _bound(summary: IterationSummary) -> tuple[bool, str]:
    if summary.coverage is None or summary.drift is None:
        return False, "no bound was calibrated before the fresh frames"
    held = f"calibrated bound held for {summary.coverage:.0%} of the fresh frames"
    return not summary.drift, held + ", fewer than chance explains" * summary.drift


def _error(name: str, value: float | None, target: float, n: int, unit: str) -> tuple[bool, str]:
    if value is None or n == 0:
        return False, f"no {name} on fresh MD frames yet"
    # A NaN error fails: it compares as false.
    return value <= target, f"{name} {value:.3g} {unit} on {n} fresh frames (target {target:.3g})"


def _all_but(findings: dict[str, tuple[bool, str]], name: str) -> bool:
    return all(holds for other, (holds, _) in findings.items() if other != name)


def _facts(findings: dict[str, tuple[bool, str]], holding: bool) -> str:
    return ", ".join(fact for holds, fact in findings.values() if holds is holding)


def _in_a_row(history: Sequence[IterationSummary], config: ConvergeConfig) -> int:
    """Iterations at the end of the history for which every condition holds."""
    row = 0
    for summary in reversed(history):
        if not all(holds for holds, _ in _findings(summary, config).values()):
            break
        row += 1
    return row


def _spent(last: IterationSummary, budget: BudgetConfig) -> str:
    if last.iteration >= budget.iterations:
        return f"{last.iteration} of {budget.iterations} iterations"
    if last.n_labels >= budget.labels:
        return f"{last.n_labels} of {budget.labels} labels"
    if budget.core_hours is not None and last.core_hours + last.next_label_core_hours >= budget.core_hours:
        return f"{last.core_hours:.3g} of {budget.core_hours:.3g} core-hours of labelling"
    return ""


def _stall(history: Sequence[IterationSummary], config: ConvergeConfig) -> str:
    measured = [
        (s.fresh_force_mae, s.iteration)
        for s in history
        if s.explored == history[-1].explored and s.fresh_force_mae is not None and math.isfinite(s.fresh_force_mae)
    ]
    if not measured:
        return ""
    lowest, when = min(measured)
    since = history[-1].iteration - when
    if since < config.stall_iterations:
        return ""
    return f"the force error on fresh frames has not fallen below {lowest:.3g} eV/Å (iteration {when}) for {since} iterations"


def _advice(last: IterationSummary, findings: dict[str, tuple[bool, str]]) -> str:
    """The likeliest remedy, one."""
    if last.walkers_stopped or not findings["physics gates"][0]:
        return "lower the highest temperature or the time step, or add rattled and strained seeds"
    if last.drift or (last.coverage is not None and last.coverage < LOW_COVERAGE):
        return f"the committee is overconfident ({last.coverage:.0%} of fresh labels within its bound): use more members"
    if last.observables is not None and _all_but(findings, "observables"):
        return "lower the target of the force error, or state the tolerances that your conclusions need"
    if findings["force error"][0] and findings["energy error"][0]:
        return "the errors are at their targets: explore longer, or accept a lower accurate_share"
    return "train longer, use more features or a larger cutoff, check the labels' k-points and basis, or raise the target"

"""The stop decision: each condition alone can prevent convergence, and the reason names it."""

from dataclasses import replace
from typing import Any

import pytest

from al_leignn.config import BudgetConfig, ConvergeConfig
from al_leignn.converge import IterationSummary, Observables, decide
from al_leignn.core import DecisionKind

GOOD = IterationSummary(
    iteration=3,
    n_labels=60,
    core_hours=1.0,
    fresh_force_mae=0.02,
    fresh_energy_mae=0.003,
    fresh_n=6,
    accurate_share=0.95,
    coverage=0.9,
    drift=False,
    gates={"nve drift": True, "force consistency": True},
    observables=Observables(("equivalent", "equivalent"), "21 observables equivalent to aimd.extxyz"),
    stability=Observables(("undecided",), "19 of 21 observables equivalent to those of the committee before, none different"),
)
SEEDED = IterationSummary(iteration=0, n_labels=20, core_hours=0.2)

FAULTS: dict[str, dict[str, Any]] = {
    "force error": {"fresh_force_mae": 0.0612},
    "energy error": {"fresh_energy_mae": 0.0074},
    "calibrated bound": {"coverage": 0.55, "drift": True},
    "accurate share": {"accurate_share": 0.42},
    "physics gates": {"gates": {"nve drift": False, "force consistency": True}},
    "stable walkers": {"walkers_stopped": 2},
    "observables": {"observables": Observables(("equivalent", "different"), "beside aimd.extxyz, different: g(r) Si-Si")},
    "stable observables": {"stability": Observables(("different",), "beside the committee before, different: energy")},
}
WORDS = {
    "force error": "force error 0.0612 eV/Å on 6 fresh frames (target 0.03)",
    "energy error": "energy error 0.0074 eV/atom on 6 fresh frames (target 0.005)",
    "calibrated bound": "held for 55% of the fresh frames, fewer than chance explains",
    "accurate share": "42.0% of the explored frames",
    "physics gates": "nve drift",
    "stable walkers": "2 walker(s) stopped",
    "observables": "beside aimd.extxyz, different: g(r) Si-Si",
    "stable observables": "beside the committee before, different: energy",
}


def test_converged_when_every_condition_holds() -> None:
    decision = decide([SEEDED, GOOD], ConvergeConfig(), BudgetConfig())
    assert decision.kind is DecisionKind.CONVERGED
    assert all(decision.conditions.values())
    assert "0.02 eV/Å on 6 fresh frames" in decision.reason
    assert "60 labels" in decision.reason


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failing_condition_is_enough_and_is_named(fault: str) -> None:
    decision = decide([SEEDED, replace(GOOD, **FAULTS[fault])], ConvergeConfig(), BudgetConfig())
    assert decision.kind is DecisionKind.CONTINUE
    assert [name for name, holds in decision.conditions.items() if not holds] == [fault, "in a row"]
    assert WORDS[fault] in decision.reason
    for other in WORDS.keys() - {fault}:
        assert WORDS[other] not in decision.reason


def test_must_hold_several_iterations_in_a_row() -> None:
    config = ConvergeConfig(iterations=2)
    bad, good = replace(GOOD, fresh_force_mae=0.06), replace(GOOD, iteration=4)
    once = decide([SEEDED, bad, good], config, BudgetConfig())
    assert once.kind is DecisionKind.CONTINUE
    assert [name for name, holds in once.conditions.items() if not holds] == ["in a row"]
    assert "1 of the 2 iterations" in once.reason
    assert decide([SEEDED, bad, good, replace(GOOD, iteration=5)], config, BudgetConfig()).kind is DecisionKind.CONVERGED
    assert decide([SEEDED, good, bad], config, BudgetConfig()).kind is DecisionKind.CONTINUE


@pytest.mark.parametrize(
    "missing",
    [
        {"fresh_force_mae": None},
        {"fresh_energy_mae": None},
        {"fresh_n": 0},
        {"accurate_share": None},
        {"gates": {}},
        {"coverage": None, "drift": None},
        {"fresh_force_mae": float("nan")},
    ],
)
def test_what_was_not_measured_does_not_hold(missing: dict[str, Any]) -> None:
    assert decide([replace(GOOD, **missing)], ConvergeConfig(), BudgetConfig()).kind is DecisionKind.CONTINUE


def test_targets_are_inclusive() -> None:
    edge = replace(GOOD, fresh_force_mae=0.03, fresh_energy_mae=0.005, accurate_share=0.9)
    assert decide([edge], ConvergeConfig(), BudgetConfig()).kind is DecisionKind.CONVERGED


def test_seeds_alone_decide_nothing() -> None:
    assert decide([], ConvergeConfig(), BudgetConfig()).kind is DecisionKind.CONTINUE
    decision = decide([SEEDED], ConvergeConfig(), BudgetConfig())
    assert decision.kind is DecisionKind.CONTINUE
    assert "no force error on fresh MD frames yet" in decision.reason


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (BudgetConfig(iterations=3), "3 of 3 iterations"),
        (BudgetConfig(labels=60), "60 of 60 labels"),
        (BudgetConfig(core_hours=0.5), "1 of 0.5 core-hours"),
    ],
)
def test_budget_spent(budget: BudgetConfig, words: str) -> None:
    short = replace(GOOD, fresh_force_mae=0.08)
    decision = decide([SEEDED, short], ConvergeConfig(), budget)
    assert decision.kind is DecisionKind.BUDGET_SPENT
    assert words in decision.reason
    assert "force error 0.08" in decision.reason
    assert decide([SEEDED, GOOD], ConvergeConfig(), budget).kind is DecisionKind.CONVERGED  # convergence comes first


def stalled(errors: list[float], **changes: Any) -> list[IterationSummary]:
    return [SEEDED, *(replace(GOOD, iteration=i, fresh_force_mae=e, **changes) for i, e in enumerate(errors, 1))]


def test_stalled_when_the_error_stops_falling() -> None:
    config = ConvergeConfig(stall_iterations=3)
    assert decide(stalled([0.2, 0.1, 0.11, 0.12]), config, BudgetConfig()).kind is DecisionKind.CONTINUE
    decision = decide(stalled([0.2, 0.1, 0.11, 0.12, 0.1]), config, BudgetConfig())
    assert decision.kind is DecisionKind.STALLED
    assert "0.1 eV/Å (iteration 2) for 3 iterations" in decision.reason
    assert decide(stalled([0.2, 0.1, 0.11, 0.12, 0.099]), config, BudgetConfig()).kind is DecisionKind.CONTINUE
    assert decide(stalled([0.2, 0.1, 0.11, 0.12, 0.1]), config, BudgetConfig(iterations=5)).kind is DecisionKind.BUDGET_SPENT


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "train longer"),
        ({"walkers_stopped": 1}, "lower the highest temperature"),
        ({"coverage": 0.3}, "use more members"),
    ],
)
def test_a_stall_comes_with_advice(changes: dict[str, Any], advice: str) -> None:
    decision = decide(stalled([0.1, 0.2, 0.2], **changes), ConvergeConfig(stall_iterations=2), BudgetConfig())
    assert decision.kind is DecisionKind.STALLED
    assert advice in decision.reason


def test_stalled_at_its_target_is_told_apart() -> None:
    history = stalled([0.02, 0.025, 0.025], accurate_share=0.5)
    assert "explore longer" in decide(history, ConvergeConfig(stall_iterations=2), BudgetConfig()).reason


def test_without_a_reference_the_claim_is_the_weaker_one_and_says_so() -> None:
    strong = decide([SEEDED, GOOD], ConvergeConfig(), BudgetConfig())
    weak = decide([SEEDED, replace(GOOD, observables=None)], ConvergeConfig(), BudgetConfig())
    assert (strong.kind, weak.kind) == (DecisionKind.CONVERGED, DecisionKind.CONVERGED)
    assert strong.conditions["observables"]
    assert "observables" not in weak.conditions
    assert "21 observables equivalent" in strong.reason
    assert "weaker claim" in weak.reason
    assert "weaker claim" not in strong.reason


def test_more_labels_are_not_paid_for_where_only_aimd_is_missing() -> None:
    undecided = Observables(("equivalent", "undecided"), "beside aimd.extxyz, undecided: MSD Si (needs 3 ps more AIMD)")
    waiting = decide([SEEDED, replace(GOOD, observables=undecided)], ConvergeConfig(), BudgetConfig())
    assert waiting.kind is DecisionKind.STALLED
    assert "only AIMD is missing" in waiting.reason
    assert "needs 3 ps more AIMD" in waiting.reason
    # Where anything else is amiss, labels may still help.
    for other in ({"fresh_force_mae": 0.06}, {"observables": Observables(("undecided", "different"), "…")}):
        going_on = decide([SEEDED, replace(GOOD, **{"observables": undecided} | other)], ConvergeConfig(), BudgetConfig())
        assert going_on.kind is DecisionKind.CONTINUE


def test_stalled_for_its_observables_alone() -> None:
    different = Observables(("different",), "beside aimd.extxyz, different: vibrations Si")
    decision = decide(stalled([0.02, 0.025, 0.025], observables=different), ConvergeConfig(stall_iterations=2), BudgetConfig())
    assert decision.kind is DecisionKind.STALLED
    assert "vibrations Si" in decision.reason
    assert "lower the target of the force error" in decision.reason

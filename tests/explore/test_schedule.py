"""Ramps, and the climb: on when a condition is learned, back when it is forgotten, always with a reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from al_leignn.config import Condition, ExploreConfig
from al_leignn.core import Deviation, Frame, Origin
from al_leignn.explore.batch import Sample, Walker, WalkerReport
from al_leignn.explore.md import Exploration, explore
from al_leignn.explore.ramp import at, points, scaled
from al_leignn.explore.recovery import ATTEMPTS, explore_with_recovery
from al_leignn.explore.schedule import Plan, Standing, make_plan, updated

LABELS = ("300 K", "600 K", "900 K")
GOOD, BAD = Standing(100, 95, 0), Standing(100, 60, 0)


def climb(standings: dict[str, Standing]) -> Plan:
    return make_plan(LABELS, standings, climb=True, walkers=4, share=0.9)


# --- ramps -----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1.0, 1e4), min_size=1, max_size=6), st.floats(0.0, 1.0))
def test_a_ramp_starts_and_ends_at_its_points_and_stays_between_them(values: list[float], share: float) -> None:
    assert at(values, 0.0) == values[0]
    assert at(values, 1.0) == values[-1]
    assert min(values) <= at(values, share) <= max(values)


def test_points_are_passed_at_equal_times() -> None:
    anneal = (300.0, 1500.0, 1500.0, 300.0)
    assert [at(anneal, share) for share in (0.0, 1 / 6, 1 / 3, 0.5, 5 / 6, 1.0)] == pytest.approx(
        [300, 900, 1500, 1500, 900, 300]
    )
    assert at(450.0, 0.7) == 450.0
    assert points(scaled(anneal, 0.5)) == (150.0, 750.0, 750.0, 150.0)


def test_conditions_name_themselves() -> None:
    assert Condition(temperature=300.0).label == "300 K"
    assert Condition(temperature=[300.0, 1600.0], pressure=[0.0, 5.0]).label == "300 → 1600 K, 0 → 5 GPa"


def test_temperatures_are_the_short_form_of_a_schedule() -> None:
    short = ExploreConfig(temperatures=[300.0, 600.0], ensemble="npt", pressure=2.0)
    assert [c.label for c in short.conditions] == ["300 K, 2 GPa", "600 K, 2 GPa"]
    long = ExploreConfig(schedule=[Condition(temperature=[300.0, 900.0, 10.0]), Condition(temperature=500.0)])
    assert long.hottest == 900.0
    with pytest.raises(ValueError, match="given twice"):
        ExploreConfig(temperatures=[300.0, 300.0])


# --- the climb -------------------------------------------------------------------------------------------


def test_without_a_policy_everything_is_explored() -> None:
    assert make_plan(LABELS, {}, climb=False, walkers=4, share=0.9) == Plan((4, 4, 4), "", complete=True)


def test_the_climb_starts_at_the_safest() -> None:
    assert climb({}) == Plan((4, 0, 0), "start with 300 K", complete=False)


def test_it_stays_until_learned_and_says_what_is_missing() -> None:
    plan = climb({"300 K": BAD})
    assert plan.walkers == (4, 0, 0)
    assert plan.why == "still at 300 K: 60 of 100 frames accurate; 90% and no stop needed"
    assert "1 walker(s) stopped" in climb({"300 K": Standing(100, 100, 1)}).why


def test_it_goes_on_when_learned_and_watches_what_is_below() -> None:
    plan = climb({"300 K": GOOD})
    assert (plan.walkers, plan.why) == ((1, 4, 0), "on to 600 K: 300 K is learned")


def test_it_comes_back_when_the_watch_finds_a_condition_forgotten() -> None:
    standings = {"300 K": GOOD, "600 K": BAD}
    standings = updated(standings, {"300 K": BAD, "600 K": GOOD}, share=0.9)
    plan = climb(standings)
    assert plan.walkers == (4, 0, 0)
    assert plan.why.startswith("back to 300 K: it is forgotten (60 of 100")
    standings = updated(standings, {"300 K": GOOD}, share=0.9)
    assert climb(standings).walkers == (1, 1, 4)


def test_at_the_top_everything_is_explored_together() -> None:
    plan = climb(dict.fromkeys(LABELS, GOOD))
    assert (plan.walkers, plan.complete) == ((4, 4, 4), True)
    assert "all 3 conditions are learned" in plan.why


standing = st.builds(Standing, st.just(10), st.integers(0, 10), st.integers(0, 1), st.booleans())


@given(st.dictionaries(st.sampled_from(LABELS), standing))
def test_every_plan_explores_the_first_unlearned_condition_and_nothing_beyond(standings: dict[str, Standing]) -> None:
    plan = climb(standings)
    learned = [label in standings and standings[label].learned(0.9) for label in LABELS]
    if plan.complete:
        assert all(learned)
    else:
        front = plan.walkers.index(4)
        assert all(learned[:front])
        assert not learned[front]
        assert plan.walkers == (1,) * front + (4,) + (0,) * (2 - front)
        assert plan.why


# --- recovery --------------------------------------------------------------------------------------------


class Engine:
    """Walkers explode in the first step above `bearable` K and take a few steps otherwise."""

    def __init__(self, bearable: float) -> None:
        self.bearable = bearable
        self.calls: list[tuple[list[int], float]] = []

    def __call__(self, walkers: Sequence[Walker], config: ExploreConfig, attempt: int) -> Exploration:
        self.calls.append(([w.index for w in walkers], config.timestep_fs))
        assert attempt == len(self.calls) - 1
        reports, samples = [], []
        for walker in walkers:
            hottest = max(points(walker.temperature))
            lost = hottest > self.bearable
            reports.append(WalkerReport(walker.index, hottest, 1 if lost else 100, "contact" if lost else "", hottest, None))
            frame = Frame.of(Atoms("Ar"), Origin("md", 1, walker.index, 1, hottest))
            samples.append(Sample(frame, Deviation(np.zeros(1), 0.0, np.zeros(1)), 0.0, hottest))
        return Exploration(samples, reports)


def walkers_at(*temperatures: float) -> list[Walker]:
    return [Walker(n, Atoms("Ar"), t) for n, t in enumerate(temperatures)]


def test_only_walkers_lost_at_once_start_again_cooler_and_slower() -> None:
    engine = Engine(bearable=400.0)
    found = explore_with_recovery(engine, walkers_at(300.0, 1200.0), ExploreConfig(timestep_fs=2.0))
    assert engine.calls == [([0, 1], 2.0), ([1], 1.0), ([1], 0.5)]
    assert [(r.temperature, r.stop_reason) for r in found.exploration.walkers] == [(300.0, ""), (300.0, "")]
    assert [s.frame.origin.walker for s in found.exploration.samples] == [0, 1, 1, 1]
    assert found.remarks == {
        1: "stopped after 1 steps (contact), started again at 600 K and 1 fs; "
        "stopped after 1 steps (contact), started again at 300 K and 0.5 fs"
    }


def test_it_gives_up_after_a_few_attempts_and_keeps_every_frame() -> None:
    engine = Engine(bearable=1.0)
    found = explore_with_recovery(engine, walkers_at(300.0, 600.0), ExploreConfig())
    assert len(engine.calls) == 1 + ATTEMPTS
    assert all(r.stop_reason == "contact" for r in found.exploration.walkers)
    assert len(found.exploration.samples) == 2 * (1 + ATTEMPTS)


def test_a_walker_that_explodes_at_once_goes_on_from_safer_conditions(lennard_jones: Any) -> None:
    potential, atoms = lennard_jones(cutoff=5.0, strengths=(1.0, 1.05)), bulk("Ar", cubic=True, a=5.3) * (2, 2, 2)

    def run(walkers: Sequence[Walker], config: ExploreConfig, attempt: int) -> Exploration:
        return explore(potential, walkers, config, iteration=1, trust_hi=np.inf, seed=np.random.SeedSequence(attempt))

    config = ExploreConfig(steps=40, timestep_fs=10.0)
    found = explore_with_recovery(run, [Walker(0, atoms, 20.0), Walker(1, atoms, 3e4)], config)
    assert [(r.steps_done, r.stop_reason) for r in found.exploration.walkers] == [(40, ""), (40, "")]
    assert set(found.remarks) == {1}
    assert found.remarks[1].endswith("started again at 15000 K and 5 fs")
    # Of both their regular frames, and of the lost one that at which it was stopped.
    assert [s.frame.origin.walker for s in found.exploration.samples] == 4 * [0] + 5 * [1]

"""Stop reasons: each begins where it says, and a healthy walker is left alone."""

from typing import Any

import numpy as np
import pytest

from al_leignn.explore.watchdog import Limits, StopReason, Vitals, stop_reasons

LIMITS = Limits(trust_hi=0.5)
HOTTEST = np.array([1500.0, 1500.0])


def vitals(**changed: Any) -> Vitals:
    """Two walkers of which the first is healthy."""
    healthy: dict[str, Any] = {
        "finite": True,
        "contact": np.inf,
        "temperature": 300.0,
        "volume": 1.0,
        "evaporated": False,
        "deviation": 0.1,
    }
    return Vitals(**{name: np.array([value, changed.get(name, value)]) for name, value in healthy.items()})


@pytest.mark.parametrize(
    ("reason", "well", "ill"),
    [
        (StopReason.NAN, {"finite": True}, {"finite": False}),
        (StopReason.CONTACT, {"contact": 0.5}, {"contact": 0.4999}),
        (StopReason.TEMPERATURE, {"temperature": 1500.0}, {"temperature": 1500.1}),
        (StopReason.TEMPERATURE, {"temperature": 1500.0}, {"temperature": np.nan}),
        (StopReason.CELL, {"volume": 1.5}, {"volume": 1.51}),
        (StopReason.CELL, {"volume": 0.67}, {"volume": 0.66}),
        (StopReason.EVAPORATION, {"evaporated": False}, {"evaporated": True}),
        (StopReason.DEVIATION, {"deviation": 0.5}, {"deviation": 0.51}),
        (StopReason.DEVIATION, {"deviation": 0.5}, {"deviation": np.nan}),
    ],
)
def test_each_reason_begins_at_its_limit(reason: StopReason, well: dict[str, Any], ill: dict[str, Any]) -> None:
    assert stop_reasons(vitals(**well), LIMITS, HOTTEST) == [StopReason.NONE, StopReason.NONE]
    assert stop_reasons(vitals(**ill), LIMITS, HOTTEST) == [StopReason.NONE, reason]


def test_the_cause_is_named_before_its_consequences() -> None:
    everything = vitals(contact=0.1, temperature=1e6, deviation=9.0)
    assert stop_reasons(everything, LIMITS, HOTTEST)[1] is StopReason.CONTACT


def test_no_limit_on_deviation_is_infinity() -> None:
    assert stop_reasons(vitals(deviation=1e9), Limits(), HOTTEST) == [StopReason.NONE] * 2


def test_heat_limit_is_far_outside_thermal_fluctuations_of_any_size() -> None:
    rng = np.random.default_rng(0)
    for atoms in (1, 2, 8, 64):
        dof = 3 * atoms
        temperatures = 300.0 * rng.chisquare(dof, 200_000) / dof
        hottest = Limits().hottest(np.array([300.0]), np.array([float(dof)]))[0]
        assert temperatures.max() < hottest
    assert hottest == pytest.approx(1500.0)

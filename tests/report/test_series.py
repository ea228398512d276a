from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.core import Stage
from al_leignn.report.series import deviation_curves, learning_curve, parity, spans, thin


@pytest.fixture
def history(emt_campaign: Path) -> History:
    return History(Layout.open(emt_campaign))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_the_highest_peak_and_the_order(values: list[float], limit: int) -> None:
    y = np.array(values)
    x, kept = thin(np.arange(len(y)), y, limit)
    assert len(kept) == min(len(y), limit)
    assert kept.max() == y.max()
    assert (np.diff(x) > 0).all()
    assert (y[x] == kept).all()


def test_curves_are_the_stored_deviations(history: History) -> None:
    curves = deviation_curves(history)
    names = [(curve.iteration, curve.walker, curve.temperature) for curve in curves]
    assert names == [
        (1, 0, 300.0),
        (1, 1, 600.0),
        (2, 0, 300.0),
        (2, 1, 600.0),
    ]
    stored = history.samples(2, 1)
    assert np.array_equal(curves[-1].deviation, stored["max_deviation"])
    assert np.array_equal(curves[-1].step, stored["step"])


def test_iterations_stand_side_by_side(history: History) -> None:
    first, second = spans(history)
    assert first.start == 0.0
    assert second.start == first.end == pytest.approx(0.1)
    assert second.end == pytest.approx(0.2)
    assert {"lo": second.trust_lo, "hi": second.trust_hi} == history.result(Stage.VALIDATE, 1)["trust"]


def test_fresh_errors_stand_at_the_labels_of_the_committee_that_drove(history: History) -> None:
    points = learning_curve(history)
    assert [(p.kind, p.iteration) for p in points] == [("test", 0), ("fresh", 1), ("test", 1), ("fresh", 2), ("test", 2)]
    totals = [history.result(Stage.COLLECT, i)["train_total"] for i in range(3)]
    assert [p.labels for p in points] == [totals[0], totals[0], totals[1], totals[1], totals[2]]
    assert points[3].force_mae == history.result(Stage.VALIDATE, 2)["fresh"]["force_mae"]


def test_parity_recovers_the_stored_error_and_thins_evenly(history: History) -> None:
    found = parity(history, 10**6)
    assert found is not None
    total, shown = found
    errors = np.abs(shown["predicted"] - shown["reference"])
    assert total == len(errors) == len(shown["uid"])
    assert errors.mean() == pytest.approx(history.result(Stage.VALIDATE, 2)["test"]["force_mae"], rel=1e-4)
    thinned = parity(history, 20)
    assert thinned is not None
    assert thinned[0] == total
    assert 10 < len(thinned[1]["reference"]) <= 20

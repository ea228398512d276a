"""How many steps a fit takes."""

import pytest

from al_leignn.config import TrainConfig
from al_leignn.train.batches import pack
from al_leignn.train.schedule import LEAST_STEPS, PASSES, planned_steps, rate_factor


def test_few_frames_get_the_least_and_many_frames_whole_passes() -> None:
    config = TrainConfig()
    assert planned_steps(config, [8] * 20, warm=False) == LEAST_STEPS
    for size, count in ((64, 2000), (8, 20000), (1, 200000)):
        batches = len(pack([size] * count, range(count), config.batch_atoms))
        assert planned_steps(config, [size] * count, warm=False) == PASSES * batches


def test_going_on_takes_a_third() -> None:
    config, sizes = TrainConfig(), [64] * 2000
    assert 3 * planned_steps(config, sizes, warm=True) == pytest.approx(planned_steps(config, sizes, warm=False), abs=3)


def test_given_numbers_are_kept() -> None:
    config = TrainConfig(steps=7, warm_steps=5)
    assert planned_steps(config, [64] * 2000, warm=False) == 7
    assert planned_steps(config, [64] * 2000, warm=True) == 5


def test_the_rate_rises_then_falls() -> None:
    rates = [rate_factor(step, 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(1.0)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.02

"""The planner is pure, never repeats what is done, and always comes to an end."""

from hypothesis import given
from hypothesis import strategies as st

from al_leignn.campaign.plan import next_requests
from al_leignn.campaign.state import IterationState, State
from al_leignn.core import Decision, DecisionKind, Stage, StageRequest


def fresh(index: int, explore: int, members: int) -> IterationState:
    counts: dict[Stage, int | None] = dict.fromkeys(Stage, 1)
    counts |= {Stage.EXPLORE: explore, Stage.LABEL: None, Stage.TRAIN: members}
    return IterationState(index, {stage: frozenset() for stage in Stage}, counts)


def after(iteration: IterationState, request: StageRequest, labels: int) -> IterationState:
    done = iteration.done | {request.stage: iteration.done[request.stage] | {request.item}}
    expected = iteration.expected | ({Stage.LABEL: labels} if request.stage is Stage.SELECT else {})
    decision = Decision(DecisionKind.CONTINUE, "") if request.stage is Stage.CONVERGE else None
    return IterationState(iteration.index, done, expected, decision)


@given(st.integers(1, 4), st.integers(0, 6), st.integers(2, 5), st.randoms(use_true_random=False))
def test_every_item_is_asked_for_once_whatever_the_order(explore: int, labels: int, members: int, random: object) -> None:
    iteration = fresh(0, explore, members)
    asked: list[StageRequest] = []
    while iteration.decision is None:
        requests = next_requests(State((iteration,), explore))
        assert requests, "the planner stopped before a decision"
        assert len({r.stage for r in requests}) == 1
        request = random.choice(requests)  # type: ignore[attr-defined]  # items of a stage finish in any order
        assert request not in asked
        asked.append(request)
        iteration = after(iteration, request, labels)
    assert len(asked) == explore + labels + members + 4
    assert [r.stage for r in asked] == sorted((r.stage for r in asked), key=list(Stage).index)


def test_iterations_follow_one_another_until_a_final_decision() -> None:
    assert next_requests(State((), 1)) == [StageRequest(Stage.EXPLORE, 0, 0)]

    def decided(kind: DecisionKind) -> IterationState:
        blank = fresh(2, 3, 4)
        return IterationState(2, blank.done, blank.expected, Decision(kind, ""))

    going_on = next_requests(State((decided(DecisionKind.CONTINUE),), 2))
    assert going_on == [StageRequest(Stage.EXPLORE, 3, 0), StageRequest(Stage.EXPLORE, 3, 1)]
    for final in (DecisionKind.CONVERGED, DecisionKind.STALLED, DecisionKind.BUDGET_SPENT):
        assert next_requests(State((decided(final),), 2)) == []
        assert next_requests(State((decided(final),), 2, reopened=True)) == going_on

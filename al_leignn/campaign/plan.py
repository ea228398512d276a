"""What to do next. Pure: a state goes in, requests come out; both runners ask here and nowhere else."""

from al_leignn.campaign.state import IterationState, State
from al_leignn.core import Stage, StageRequest


def next_requests(state: State) -> list[StageRequest]:
    """All work that can be done now, in order; empty when the campaign is finished.

    Stages follow one another; items of one stage are independent. After a decision to continue (or after
    the user edited the conditions of a final one) the next iteration begins.
    """
    if state.finished:
        return []
    current = state.current
    if current is None or current.decision is not None:
        index = 0 if current is None else current.index + 1
        return [StageRequest(Stage.EXPLORE, index, item) for item in range(state.next_explore_items)]
    return remaining(current)


def remaining(iteration: IterationState) -> list[StageRequest]:
    """Missing items of the first stage that is not complete."""
    for stage in Stage:
        missing = iteration.missing(stage)
        if missing:
            return [StageRequest(stage, iteration.index, item) for item in missing]
    return []

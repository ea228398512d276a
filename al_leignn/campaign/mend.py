"""Published files that were damaged afterwards (a bad disk, a careless hand) are found by their digests and made again."""

import shutil
from collections.abc import Iterator

from al_leignn.campaign.item import unfinished
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.state import scan
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import DamagedArtifactError
from al_leignn.store import verify


def mend(layout: Layout) -> list[str]:
    """Compare everything published with its digests, and compute again what differs; what was found, in words.

    Runners do so before they go on. The same inputs and seeds give the same files, so that nothing made of them since has to
    change, and labels come from the label store: only the time of the damaged items is spent again.
    """
    from al_leignn.campaign.stages import run_stage  # most runs find nothing to do here

    found = []
    for request in _believed(layout):
        folder = layout.item(request)
        shutil.rmtree(unfinished(layout, request), ignore_errors=True)  # of one that died between publishing and tidying up
        try:
            verify(folder)
        except DamagedArtifactError as error:
            found.append(f"{request} is made again: {error.what}, {error.where}")
            shutil.rmtree(folder, ignore_errors=True)
            run_stage(layout, request)
    # How many labels there are is said by a selection: where that was damaged, they have not been looked at yet.
    return found + mend(layout) if found else found


def _believed(layout: Layout) -> Iterator[StageRequest]:
    """Items that count as published, in the order of the loop: all of earlier iterations, and those found in the last."""
    state = scan(layout)
    for iteration in state.iterations:
        for stage in Stage:
            expected = None if iteration is state.current else iteration.expected[stage]
            items = sorted(iteration.done[stage]) if expected is None else range(expected)
            yield from (StageRequest(stage, iteration.index, item) for item in items)

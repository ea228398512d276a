"""The local runner: no database, no server. Worker processes take requests from the planner until it has none left."""

import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import holding
from al_leignn.campaign.mend import mend
from al_leignn.campaign.plan import next_requests
from al_leignn.campaign.state import scan
from al_leignn.core import Decision, Stage, StageRequest
from al_leignn.errors import AlLeignnError, RunError, WaitingError
from al_leignn.flow.failure import logged_failure
from al_leignn.flow.watch import Tick, Watcher
from al_leignn.processes import Workers, send
from al_leignn.store import sweeping_scratch


def run(layout: Layout, *, workers: int, max_iterations: int | None, watcher: Watcher) -> Decision | None:
    """Run a campaign until it decides to stop, or until `max_iterations` more iterations are decided.

    Always resumes: what is published stays, what was cut off is done again. Returns the last decision.

    Raises
    ------
    CampaignLockedError
        If another runner works on this campaign.
    RunError
        If an item fails; everything else that was under way is finished and published first.
    """
    with holding(layout.lock, "al-leignn run"), sweeping_scratch(layout.root), Workers(workers) as pool:
        for damage in mend(layout):
            warnings.warn(damage, stacklevel=2)
        decided = 0
        while max_iterations is None or decided < max_iterations:
            state = scan(layout)
            requests = next_requests(state)
            if not requests:
                return state.decision
            layout.open_iteration(requests[0].iteration)
            do_requests(layout, requests, pool, watcher)
            if requests[0].stage is Stage.CONVERGE:
                decided += 1
                watcher.decided(layout, requests[0].iteration)
        return scan(layout).decision


def do_requests(layout: Layout, requests: Sequence[StageRequest], pool: Workers, watcher: Watcher) -> None:
    """Run independent items; returns when all are published, raises the first error after the others ended."""
    watcher.begin(requests)
    pending: dict[Future[None], StageRequest] = {pool.submit(_work, layout.root, request): request for request in requests}
    failures: list[tuple[StageRequest, BaseException]] = []
    try:
        while pending:
            ready, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
            for tick in pool.news():
                watcher.tick(tick)
            for future in ready:
                request = pending.pop(future)
                error = future.exception()
                if error is None:
                    watcher.finished(request)
                else:
                    failures.append((request, error))
    finally:
        watcher.end()
    if failures:
        # A label that is made elsewhere is no failure, and the last thing to tell of.
        broken = next((n for n, (_, error) in enumerate(failures) if not isinstance(error, WaitingError)), None)
        raise _waiting([error for _, error in failures]) if broken is None else _failure(*failures[broken], layout)


def _waiting(errors: Sequence[BaseException]) -> WaitingError:
    first = next(error for error in errors if isinstance(error, WaitingError))
    if len(errors) == 1:
        return first
    return WaitingError(f"{len(errors)} labels are waited for", where=str(Path(first.where).parent), fix=first.fix)


def _failure(request: StageRequest, error: BaseException, layout: Layout) -> AlLeignnError:
    if isinstance(error, AlLeignnError):
        return error
    if isinstance(error, BrokenProcessPool):
        return RunError(
            f"a worker process died during {request}",
            where=str(layout.root),
            fix="often the machine ran out of memory: try fewer --workers; run again to continue, nothing published is lost",
        )
    return logged_failure(layout, request, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


def _work(root: Path, request: StageRequest) -> None:
    """In a worker."""
    from al_leignn.campaign.stages import run_stage

    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2 or done >= total:
            last = now
            send(Tick(request, done, total, note))

    run_stage(Layout(root), request, report)

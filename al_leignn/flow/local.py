"""The local runner: no database, no server. Worker processes take requests from the planner until it has none left."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue as ProcessQueue
from pathlib import Path
from queue import Empty

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import holding
from al_leignn.campaign.mend import mend
from al_leignn.campaign.plan import next_requests
from al_leignn.campaign.state import scan
from al_leignn.core import Decision, Stage, StageRequest
from al_leignn.errors import AlLeignnError, RunError, WaitingError
from al_leignn.flow.failure import logged_failure
from al_leignn.flow.watch import Tick, Watcher
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
    with holding(layout.lock, "al-leignn run"), sweeping_scratch(layout.root), _Pool(layout, workers, watcher) as pool:
        for damage in mend(layout):
            warnings.warn(damage, stacklevel=2)
        decided = 0
        while max_iterations is None or decided < max_iterations:
            state = scan(layout)
            requests = next_requests(state)
            if not requests:
                return state.decision
            layout.open_iteration(requests[0].iteration)
            pool.do(requests)
            if requests[0].stage is Stage.CONVERGE:
                decided += 1
                watcher.decided(layout, requests[0].iteration)
        return scan(layout).decision


class _Pool:
    """Long-lived worker processes (importing torch costs seconds), and the progress they send back."""

    def __init__(self, layout: Layout, workers: int, watcher: Watcher) -> None:
        context = multiprocessing.get_context("spawn")
        self._layout = layout
        self._watcher = watcher
        self._ticks: ProcessQueue[Tick] = context.Queue()
        self._executor = ProcessPoolExecutor(
            max_workers=workers, mp_context=context, initializer=_start_worker, initargs=(os.getpid(), self._ticks)
        )

    def __enter__(self) -> "_Pool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Do not wait for hours of DFT: what is published is safe, the rest is redone.
            for process in list((self._executor._processes or {}).values()):
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def do(self, requests: Sequence[StageRequest]) -> None:
        """Run independent items; returns when all are published, raises the first error after the others ended."""
        self._watcher.begin(requests)
        pending: dict[Future[None], StageRequest] = {self._executor.submit(_work, self._layout.root, r): r for r in requests}
        failures: list[tuple[StageRequest, BaseException]] = []
        try:
            while pending:
                ready, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
                self._drain()
                for future in ready:
                    request = pending.pop(future)
                    error = future.exception()
                    if error is None:
                        self._watcher.finished(request)
                    else:
                        failures.append((request, error))
        finally:
            self._watcher.end()
        if failures:
            # A label that is made elsewhere is no failure, and the last thing to tell of.
            broken = next((n for n, (_, error) in enumerate(failures) if not isinstance(error, WaitingError)), None)
            raise _waiting([error for _, error in failures]) if broken is None else _failure(*failures[broken], self._layout)

    def _drain(self) -> None:
        while True:
            try:
                self._watcher.tick(self._ticks.get_nowait())
            except Empty:
                return


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


# --- inside a worker process -----------------------------------------------------------------------------

_ticks: "ProcessQueue[Tick] | None" = None
"""Set once, when the process starts: a queue can only be inherited, not sent along with each request."""


def _start_worker(parent: int, ticks: "ProcessQueue[Tick]") -> None:
    global _ticks  # noqa: PLW0603
    _ticks = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the runner ends its workers itself
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    """End this process when the runner is gone, however it went: no orphan may go on writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(root: Path, request: StageRequest) -> None:
    from al_leignn.campaign.stages import run_stage

    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2 or done >= total:
            last = now
            if _ticks is not None:
                _ticks.put(Tick(request, done, total, note))

    run_stage(Layout(root), request, report)

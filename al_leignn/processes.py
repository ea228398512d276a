"""Worker processes that report to the process that started them, and never outlive it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import SimpleQueue
from typing import Any

WATCH_S = 0.5
"""Seconds between two looks at whether the starting process is still there."""


class Workers(ProcessPoolExecutor):
    """Long-lived processes with interpreters of their own, for `submit`; what a call `send`s back arrives in `news`.

    Left by an exception, they are ended at once, whatever they are at. If this process dies, they end by themselves.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._news: SimpleQueue[Any] = context.SimpleQueue()
        super().__init__(count, mp_context=context, initializer=_begin, initargs=(os.getpid(), self._news))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in list((self._processes or {}).values()):
                process.terminate()
        self.shutdown(wait=True, cancel_futures=True)

    def news(self) -> Iterator[Any]:
        """What has been sent and not been read yet; all that a call sent is here once its result is."""
        while not self._news.empty():
            yield self._news.get()


_to_parent: "SimpleQueue[Any] | None" = None
"""Of a worker: set when it starts, for a queue can only be inherited, not sent along with each call."""


def send(news: Any) -> None:
    """From within a worker: tell the process that started it."""
    if _to_parent is not None:
        _to_parent.put(news)


def _begin(parent: int, news: "SimpleQueue[Any]") -> None:
    global _to_parent  # noqa: PLW0603
    _to_parent = news
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starting process ends its workers itself
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)

"""Keeping a queue in order while workers, servers and whole machines die.

FireWorks changes several documents for every step of a job, and a worker may be killed between any two of them. What it
can mend itself (lost runs) it is asked to mend. For the rest, a campaign's part of the queue is thrown away and built
anew from the files, where finished items are found finished at once.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

from fireworks import LaunchPad
from fireworks.fw_config import RUN_EXPIRATION_SECS

from al_leignn import errors
from al_leignn.campaign.layout import Layout
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import AlLeignnError, NotPublishedError, RunError
from al_leignn.flow.failure import logged_failure
from al_leignn.flow.worker import LOCAL, PING_S, REMOTE, LocalWorkers

LOST_S = 5 * PING_S
"""Seconds of silence after which the item of an `al-leignn worker` elsewhere goes to another. Those that `launch` started
are noticed at once; for plain `rlaunch`, which gives a sign of life once an hour, it is FireWorks' own limit (4 hours)."""

_OVER = ["COMPLETED", "ARCHIVED"]
_ACTIVE = ["READY", "RESERVED", "RUNNING"]
_LOOK_S = 10.0
_DEATHS = 3


class Upkeep:
    """Looks after one campaign's part of a queue.

    Parameters
    ----------
    crew
        The workers that run on this machine, replaced when they die.
    refill
        Puts the workflow that is due into the queue unless it is there.
    """

    def __init__(self, launchpad: LaunchPad, layout: Layout, crew: LocalWorkers, refill: Callable[[], object]) -> None:
        self._launchpad = launchpad
        self._layout = layout
        self._crew = crew
        self._refill = refill
        self._mine = {"spec.campaign": str(layout.root)}
        self._dead: list[str] = []
        self._deaths: Counter[str] = Counter()
        self._too_soon = 0
        self._symptoms: frozenset[str] = frozenset()
        self._looked = time.monotonic()

    def begin(self) -> None:
        """Take over the queue as it is if workers elsewhere are at it; otherwise build it anew."""
        if self._at_work() and self._unlocks():
            self._dead.append(LOCAL)  # those of an earlier launch, all of them
            self._rerun_failed()
        else:
            self._clear()
        self._refill()

    def check(self) -> None:
        """Mend what can be mended; cheap enough to be called several times a second.

        Raises
        ------
        AlLeignnError
            If an item has failed and nothing else is left to do.
        """
        buried = self._crew.bury()
        self._dead += buried
        self._crew.start()
        if self._dead and not self._locked():
            for name in self._dead:
                self._rerun_lost(name)
            self._dead.clear()
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()
        error = self._failure()
        if isinstance(error, NotPublishedError) and self._too_soon < _DEATHS:
            self._too_soon += 1  # a server that dies may leave an item ready whose parents are not done
            self._rebuild()
        elif error is not None:
            raise error

    # --- lost runs -----------------------------------------------------------------------------------------

    def _rerun_lost(self, name: str) -> None:
        """Put what a dead worker had in hand back into the queue; `name` is its name, or the first words of it."""
        query = {"fworker.name": {"$regex": f"^{re.escape(name)}( |$)"}}
        _, lost, _ = self._launchpad.detect_lostruns(0, rerun=True, refresh=True, query=dict(self._mine), launch_query=query)
        for job in self._launchpad.fireworks.find({"fw_id": {"$in": lost}}, {"name": 1}):
            self._deaths[job["name"]] += 1
            if self._deaths[job["name"]] >= _DEATHS:
                raise RunError(
                    f"a worker process died during {job['name']}, {_DEATHS} times",
                    where=str(self._layout.root),
                    fix="often the machine ran out of memory: try fewer --workers; run again to continue",
                )

    def _look(self) -> None:
        """Now and then: silent workers elsewhere, and trouble that does not go away by itself."""
        self._looked = time.monotonic()
        before, self._symptoms = self._symptoms, self._find_symptoms()
        if before & self._symptoms:
            self._rebuild()
        elif not self._locked():
            remote = {"fworker.name": {"$regex": f"^{REMOTE} "}}
            self._launchpad.detect_lostruns(LOST_S, rerun=True, refresh=True, query=dict(self._mine), launch_query=remote)
            self._launchpad.detect_lostruns(rerun=True, refresh=True, query=dict(self._mine))
            if not self._jobs(*_ACTIVE, "WAITING"):
                self._refill()  # somebody took our workflow out

    def _at_work(self) -> bool:
        """Whether workers elsewhere have items of this campaign in hand. Those of an earlier launch ended with it."""
        ids = [job["fw_id"] for job in self._jobs("RUNNING", "RESERVED")]
        now = datetime.now(UTC)
        for run in self._launchpad.launches.find({"fw_id": {"$in": ids}, "state": {"$in": ["RUNNING", "RESERVED"]}}):
            name = run["fworker"]["name"]
            if name.startswith(f"{LOCAL} "):
                continue
            limit = LOST_S if name.startswith(f"{REMOTE} ") else RUN_EXPIRATION_SECS
            heard = datetime.fromisoformat(run["state_history"][-1]["updated_on"])
            if run["state"] == "RESERVED" or now - heard < timedelta(seconds=limit):
                return True
        return False

    # --- a queue beyond mending ----------------------------------------------------------------------------

    def _find_symptoms(self) -> frozenset[str]:
        """What a queue shows for an instant when it is well, and for ever after a worker died at that instant."""
        count = self._launchpad.fireworks.count_documents(self._mine)
        locked = {f"locked {w['_id']} {w['updated_on']} {count}" for w in self._launchpad.workflows.find(self._lock_query())}
        nodes = set(chain.from_iterable(w["nodes"] for w in self._launchpad.workflows.find(self._workflows(), {"nodes": 1})))
        jobs = self._jobs(*_ACTIVE, "WAITING")
        stray = {f"stray {job['fw_id']}" for job in jobs if job["fw_id"] not in nodes}
        half = {f"half {j['fw_id']} {j['updated_on']}" for j in jobs if j["state"] == "RESERVED" and not j["launches"]}
        return frozenset(locked | stray | half)

    def _rebuild(self) -> None:
        self._crew.stop(grace_s=0.0)
        self._clear()
        self._refill()
        self._crew.start()

    def _clear(self) -> None:
        """Take out all that is not over, and all that has lost its workflow. Local workers must not be running."""
        over = self._launchpad.workflows.find(self._workflows() | {"state": {"$in": _OVER}}, {"nodes": 1})
        keep = list(chain.from_iterable(w["nodes"] for w in over))
        gone = [j["fw_id"] for j in self._launchpad.fireworks.find(self._mine | {"fw_id": {"$nin": keep}}, {"fw_id": 1})]
        self._launchpad.launches.delete_many({"fw_id": {"$in": gone}})
        self._launchpad.fireworks.delete_many({"fw_id": {"$in": gone}})
        self._launchpad.workflows.delete_many(self._workflows() | {"state": {"$nin": _OVER}})
        self._dead.clear()
        self._symptoms = frozenset()

    def _jobs(self, *states: str) -> list[dict[str, Any]]:
        fields = {"fw_id": 1, "name": 1, "state": 1, "launches": 1, "updated_on": 1}
        return list(self._launchpad.fireworks.find(self._mine | {"state": {"$in": list(states)}}, fields))

    def _workflows(self) -> dict[str, Any]:
        return {"metadata.campaign": str(self._layout.root)}

    def _lock_query(self) -> dict[str, Any]:
        return self._workflows() | {"locked": {"$exists": True}}

    def _locked(self) -> bool:
        """Whether FireWorks would wait (up to five minutes) before it let us change anything."""
        return self._launchpad.workflows.find_one(self._lock_query(), {"_id": 1}) is not None

    def _unlocks(self) -> bool:
        """Whether it comes to be unlocked, as it does within moments unless who locked it is dead."""
        deadline = time.monotonic() + _LOOK_S
        while self._locked() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self._locked()

    # --- failures ------------------------------------------------------------------------------------------

    def _rerun_failed(self) -> None:
        for job in self._jobs("FIZZLED"):
            self._launchpad.rerun_fw(job["fw_id"])

    def _failure(self) -> AlLeignnError | None:
        """The first error in the order of the loop, once no work is left that could still be done."""
        jobs = self._launchpad.fireworks
        failed = list(jobs.find(self._mine | {"state": "FIZZLED"}, {"fw_id": 1, "spec": 1}))
        if not failed or jobs.find_one(self._mine | {"state": {"$in": _ACTIVE}}, {"_id": 1}) is not None:
            return None
        requests = {
            StageRequest(Stage(j["spec"]["stage"]), j["spec"]["iteration"], j["spec"]["item"]): j["fw_id"] for j in failed
        }
        request = min(requests, key=lambda r: (r.iteration, list(Stage).index(r.stage), r.item))
        run = self._launchpad.launches.find_one({"fw_id": requests[request], "state": "FIZZLED"}, sort=[("launch_id", -1)])
        told = ((run or {}).get("action") or {}).get("stored_data", {}).get("_exception", {})
        details, trace = told.get("_details"), str(told.get("_stacktrace", "FireWorks kept no details"))
        if details:
            kind = getattr(errors, details["kind"], RunError)
            return kind(details["what"], where=details["where"], fix=details["fix"])
        return logged_failure(self._layout, request, trace.strip().splitlines()[-1], trace)

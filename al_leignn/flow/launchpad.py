"""Opening a LaunchPad (FireWorks' name for its database) with errors a user can act on, and nothing printed."""

import logging
from collections import Counter
from pathlib import Path

import pymongo
from fireworks import LaunchPad
from pymongo.errors import OperationFailure, PyMongoError

from al_leignn.errors import QueueError

_ANSWER_S = 5.0


def open_launchpad(file: Path) -> LaunchPad:
    """The LaunchPad that a my_launchpad.yaml describes; it has answered and taken the login.

    Close `.connection` when done with it.

    Raises
    ------
    QueueError
        If the file cannot be used, the database does not answer within 5 s, or it refuses the login.
    """
    launchpad = read_launchpad(file)
    try:
        with pymongo.timeout(_ANSWER_S):
            launchpad.workflows.find_one({}, {"_id": 1})  # unlike a ping, this needs the login
    except OperationFailure as error:
        launchpad.connection.close()
        what = f"the queue refuses the login: {error.args[0].split(', full error')[0]}"
        raise QueueError(what, where=str(file), fix="check username, password, authsource and name in this file") from None
    except PyMongoError:
        launchpad.connection.close()
        raise QueueError(
            f"the queue does not answer at {_place(launchpad)}",
            where=str(file),
            fix="start its database, or correct host and port in this file",
        ) from None
    return launchpad


def read_launchpad(file: Path) -> LaunchPad:
    """The LaunchPad that a file describes, without asking whether it answers; raises `QueueError` if it is no such file."""
    # FireWorks logs to standard output, at a level every call sets anew; what matters is stored in its database.
    for name in ("launchpad", "rocket.launcher"):
        logging.getLogger(name).disabled = True
    try:
        return LaunchPad.from_file(str(file))
    except FileNotFoundError:
        raise QueueError("there is no such launchpad file", where=str(file), fix="name a my_launchpad.yaml") from None
    except Exception as error:  # noqa: BLE001 - whatever FireWorks, its YAML reader or pymongo find wrong with the file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QueueError(
            f"this is not a usable launchpad file: {reason}",
            where=str(file),
            fix="compare it with workflows/my_launchpad.yaml, or write one with `lpad init`",
        ) from None


def _place(launchpad: LaunchPad) -> str:
    return "the address given" if launchpad.uri_mode else f"{launchpad.host}:{launchpad.port}"


def queue_status(file: Path) -> dict[str, int]:
    """How many items of all campaigns in a queue are in which state (READY, RUNNING, FIZZLED, …); zero counts are left out."""
    launchpad = open_launchpad(file)
    try:
        states = [job["state"] for job in launchpad.fireworks.find({"spec.campaign": {"$exists": True}}, {"state": 1})]
    finally:
        launchpad.connection.close()
    return dict(sorted(Counter(states).items()))

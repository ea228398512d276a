"""An item that broke in a way nobody foresaw: the traceback goes to a log, the user gets one line and the log's name."""

from al_leignn.campaign.layout import Layout
from al_leignn.core import StageRequest
from al_leignn.errors import RunError
from al_leignn.store import write_atomic


def logged_failure(layout: Layout, request: StageRequest, said: str, trace: str) -> RunError:
    """Write the traceback under logs/; the error says what the exception said, and where the log is."""
    log = layout.logs / f"{request.stage}-{request.iteration:03d}-{request.item:04d}.log"
    write_atomic(log, trace)
    return RunError(f"{request} failed: {said}", where=str(log), fix="the log has the details; run again to continue")

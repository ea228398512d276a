"""The queue is an optional extra: say so before an import fails."""

from importlib.util import find_spec

from al_leignn.errors import QueueError


def require_queue() -> None:
    """Raise `QueueError` where FireWorks is not installed."""
    missing = [name for name in ("fireworks", "pymongo") if find_spec(name) is None]
    if missing:
        raise QueueError(f"{' and '.join(missing)} not installed", fix="pip install 'al-leignn[queue]', or use `al-leignn run`")

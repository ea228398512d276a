"""Everything that can go wrong on purpose.

AlLeignnError                 base; carries what happened, where, and what to do
├── InputError                the user's input, exit code 2, nothing was written
│   ├── ConfigError           campaign.toml: unknown key, wrong type, impossible value
│   ├── StructureError        a structure that cannot be read or simulated
│   ├── DataError             labelled data that cannot be used
│   ├── CheckpointError       a model file that is damaged, foreign or from the future
│   ├── CampaignError         no campaign here, or a folder that is not free
│   └── CampaignLockedError   another process is working on this campaign
├── WaitingError              nothing failed: labels are made elsewhere and have not come back yet, exit code 3
└── RunError                  the work itself failed, exit code 1
    ├── LabellerError         the labeller cannot run at all (a failed label is a value, not an error)
    ├── QueueError            the queue or its server does not answer
    ├── DamagedArtifactError  a published file does not match its digest
    └── StaleArtifactError    a published result was made from other inputs
"""


class AlLeignnError(Exception):
    """Base of every deliberate error.

    Parameters
    ----------
    what
        What happened, one sentence without a final full stop.
    where
        File, key or frame it happened in; empty if it has no place.
    fix
        What the user can do about it; empty if nothing is known to help.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  to do: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between worker processes; keyword-only fields need help to be pickled.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[AlLeignnError], what: str, where: str, fix: str) -> AlLeignnError:
    return kind(what, where=where, fix=fix)


class InputError(AlLeignnError):
    exit_code = 2


class ConfigError(InputError):
    pass


class StructureError(InputError):
    pass


class DataError(InputError):
    pass


class CheckpointError(InputError):
    pass


class CampaignError(InputError):
    pass


class CampaignLockedError(InputError):
    pass


class WaitingError(AlLeignnError):
    exit_code = 3


class RunError(AlLeignnError):
    pass


class NotPublishedError(RunError):
    """An item was run before those that it needs."""


class LabellerError(RunError):
    pass


class QueueError(RunError):
    pass


class DamagedArtifactError(RunError):
    pass


class StaleArtifactError(RunError):
    pass

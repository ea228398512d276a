"""Where a model runs and in which precision: what a user asks for, checked."""

import torch

from al_leignn.errors import ConfigError

PRECISIONS = (torch.float32, torch.float64)


def checked_device(device: torch.device | str, *, where: str = "") -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises
    ------
    ConfigError
        There is no such device on this machine; `where` tells which setting named it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"{device!r} is no device", where=where, fix="auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"this machine has no device {str(device)!r}", where=where, fix="auto takes what there is")
    return found


def checked_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """The same; raises `ConfigError` unless it is single or double precision, or None."""
    if dtype is not None and dtype not in PRECISIONS:
        raise ConfigError(f"a model cannot be of type {dtype}", fix="torch.float32 or torch.float64")
    return dtype

"""Numbers as people read them, in tables and on pages."""

import math


def number(value: float | None, digits: int = 3) -> str:
    """A number with few digits; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share as a percentage that reads 100 % or 0 % only where it is exactly that."""
    if share is None:
        return "–"
    text = f"{share:.1%}"
    if text == "100.0%" and share < 1:
        text = ">99.9%"
    if text == "0.0%" and share > 0:
        text = "<0.1%"
    return text.replace("%", " %")


def seconds(value: float) -> str:
    """A duration in the unit in which it is easily read."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if value < limit:
            return f"{value / size:.1f} {unit}"
    return f"{value / 86400:.1f} d"

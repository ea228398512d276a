"""Molecular dynamics at ab initio quality: committees of LEIGNN potentials grown by active learning."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from al_leignn.campaign.campaign import Campaign as Campaign
    from al_leignn.model.calculator import LeignnCalculator as LeignnCalculator
    from al_leignn.model.committee import Committee as Committee
    from al_leignn.model.leignn import LEIGNN as LEIGNN

__all__ = ["LEIGNN", "Campaign", "Committee", "LeignnCalculator", "__version__"]

_HOMES = {
    "LEIGNN": "al_leignn.model.leignn",
    "Committee": "al_leignn.model.committee",
    "LeignnCalculator": "al_leignn.model.calculator",
    "Campaign": "al_leignn.campaign.campaign",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import al_leignn` and the command line stay free of torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'al_leignn' has no attribute {name!r}")

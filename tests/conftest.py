"""Fixtures and switches for the whole suite.

Annotated array shapes and argument types of the package are checked at run time, in every test: the import hook below
must come before the first import of al_leignn. (Processes that a test starts run without it, as users do.)
"""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

# The numeric tower lets an int stand where a float is asked for, as type checkers do. `Self` is passed over: the hook
# decorates one function at a time, and beartype can tell what `Self` is only when it sees the whole class.
CHECKED = BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object}))
sys.modules["checked_types"] = types = ModuleType("checked_types")
types.__dict__["check"] = beartype(conf=CHECKED)
install_import_hook("al_leignn", "checked_types.check")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of published DFT data sets, one folder each; skips where it is not there.

    They are too large (and some too restricted in licence) for the repository: AL_LEIGNN_DATA says where they are.
    """
    folder = Path(os.environ.get("AL_LEIGNN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set AL_LEIGNN_DATA to the folder that has them")
    return folder

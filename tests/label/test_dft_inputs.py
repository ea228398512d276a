"""The parameter sets that ship with the project are ones the config accepts, and each documents itself."""

import tomllib
from pathlib import Path

import pytest

from al_leignn.config import GpawConfig

FOLDER = Path(__file__).parents[2] / "dft_inputs"
FILES = sorted(FOLDER.glob("*.toml"))


def test_there_are_parameter_sets() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_keys_and_values_are_valid(path: Path) -> None:
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    assert values["type"] == "gpaw"
    config = GpawConfig.model_validate(values)
    assert f"_{config.mode}_" in path.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_documented(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert path.name in (FOLDER / "README.md").read_text(encoding="utf-8")

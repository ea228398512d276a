"""campaign.toml: what is wrong is named, with the nearest key."""

from pathlib import Path

import pytest

from al_leignn.config import load_config
from al_leignn.errors import ConfigError

GOOD = 'name = "x"\nstructures = ["a"]\n[labeller]\ntype = "gpaw"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "campaign.toml"
    path.write_text(text)
    return path


def test_defaults_fill_in(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert config.train.members == 4
    assert config.labeller.type == "gpaw"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "[explore]\ntemperature = [300]\n", ["explore.temperature", "did you mean 'temperatures'"]),
        (GOOD + "[explore]\ntemperatures = [-5]\n", ["explore.temperatures.0", "greater than 0"]),
        (GOOD + "[train]\nmembers = 'four'\n", ["train.members", "integer", "four"]),
        (GOOD.replace("gpaw", "vasp9"), ["labeller", "gpaw", "external"]),
        (GOOD + "ecutt = 3\n", ["labeller.ecutt", "did you mean 'ecut'"]),
        (GOOD + "[select]\ntrust_lo = 0.5\ntrust_hi = 0.2\n", ["trust_lo (0.5) must be below trust_hi (0.2)"]),
        (GOOD + "[model]\ndirect_forces = true\n", ["direct_forces"]),
        (GOOD + "[model]\npreset = 'paper'\n[explore]\nensemble = 'npt'\n", ['ensemble = "npt" needs model.preset = "local"']),
        ("name = 'x'\n", ["structures", "missing"]),
        ("name = \n", ["not valid TOML", "line 1"]),
        (GOOD + "[converge]\niterations = 0\n[budget]\nlabels = 0\n", ["converge.iterations", "1 more problem"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message


def test_a_missing_binary_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="al-leignn init"):
        load_config(tmp_path / "campaign.toml")
    path = tmp_path / "campaign.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)
    with pytest.raises(ConfigError, match="directory"):
        load_config(tmp_path)

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from al_leignn.campaign.layout import Layout
from al_leignn.errors import InputError
from al_leignn.report.plots import plot_history


def test_figure_is_drawn(emt_campaign: Path, tmp_path: Path) -> None:
    plot_history(Layout.open(emt_campaign), tmp_path / "new" / "history.png")
    with Image.open(tmp_path / "new" / "history.png") as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_svg_names_axes_with_units(emt_campaign: Path, tmp_path: Path) -> None:
    plot_history(Layout.open(emt_campaign), tmp_path / "history.svg")
    text = (tmp_path / "history.svg").read_text(encoding="utf-8")
    for label in ("model deviation (eV/Å)", "force MAE (eV/Å)", "reference force (eV/Å)", "labels trained on", "Cu3Al"):
        assert label in text


def test_a_campaign_without_md_has_a_figure_too(emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copy(emt_campaign / "campaign.toml", tmp_path)
    plot_history(Layout.open(tmp_path), tmp_path / "history.svg")
    assert "no MD yet" in (tmp_path / "history.svg").read_text(encoding="utf-8")


def test_unknown_format_is_the_users_mistake(emt_campaign: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind of figure"):
        plot_history(Layout.open(emt_campaign), tmp_path / "history.xyz")
    assert list(tmp_path.iterdir()) == []

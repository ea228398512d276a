"""What the repository says of itself is true: links lead somewhere, the reference is current, inputs are what they claim."""

import re
import runpy
from pathlib import Path

import ase.io
import numpy as np
import pytest
from pymatgen.core.structure import Structure

from al_leignn.config import LABELLERS


def pages(repository: Path) -> list[Path]:
    return [*repository.glob("*.md"), *(repository / "docs").rglob("*.md"), *(repository / "workflows").rglob("*.md")]


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    broken = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages(repository)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert not broken


def test_config_reference_is_current(repository: Path) -> None:
    script = runpy.run_path(str(repository / "docs" / "write_config_reference.py"))
    assert (repository / "docs" / "config.md").read_text() == script["reference"](), (
        "al_leignn/config.py changed: run `make docs`"
    )


def test_every_config_key_is_explained(repository: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", (repository / "docs" / "config.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 60
    assert [key for key, meaning in rows if not meaning.strip()] == ["type"] * len(LABELLERS)


def test_make_targets_of_the_guides_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (repository / page).read_text()
        for words in re.findall(r"^(?:sh \.ci/bootstrap|make) ([a-z -]+)", text, flags=re.MULTILINE):
            assert set(words.split()) <= targets, page


def test_silicon_example_is_diamond_to_every_reader(repository: Path) -> None:
    path = repository / "workflows" / "silicon" / "Si.cif"
    by_pymatgen = Structure.from_file(path)
    by_ase = ase.io.read(path)
    assert isinstance(by_ase, ase.Atoms)
    assert len(by_pymatgen) == len(by_ase) == 8
    assert by_pymatgen.get_space_group_info() == ("Fd-3m", 227)
    bond = np.sqrt(3) / 4 * 5.431
    for distances in (by_pymatgen.distance_matrix, by_ase.get_all_distances(mic=True)):
        assert np.sort(distances, axis=1)[:, 1:5] == pytest.approx(bond, abs=1e-6)

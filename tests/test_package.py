"""The package as a whole: what it exports, what importing it costs, what the wheel contains, who may import whom."""

import ast
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import al_leignn

HEAVY = ("torch", "gpaw", "fireworks", "pymongo", "ase.io", "pymatgen", "sklearn", "matplotlib.pyplot", "pandas")
"""What `import al_leignn` must not load: seconds of start-up, or an optional extra."""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def modules(repository: Path) -> list[Path]:
    return sorted((repository / "al_leignn").rglob("*.py"))


def test_public_names_are_importable_and_listed() -> None:
    assert set(al_leignn.__all__) == {"LEIGNN", "Campaign", "Committee", "LeignnCalculator", "__version__"}
    for name in al_leignn.__all__:
        assert getattr(al_leignn, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Ensemble"):
        _ = al_leignn.Ensemble


@pytest.mark.parametrize("code", ["import al_leignn", "import al_leignn.cli.app"])
def test_import_stays_light(code: str) -> None:
    found = run_python(f"{code}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules])")
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_import_has_no_side_effects(tmp_path: Path) -> None:
    """No file, no logging handler, no change of warning filters or of numpy's global random state."""
    code = f"""
import logging, os, warnings, numpy
os.chdir({str(tmp_path)!r})
before = (list(warnings.filters), list(logging.root.handlers), numpy.random.get_state()[1].tolist())
import al_leignn
assert before == (list(warnings.filters), list(logging.root.handlers), numpy.random.get_state()[1].tolist())
"""
    found = run_python(code)
    assert found.returncode == 0, found.stderr
    assert not list(tmp_path.iterdir())


def test_every_module_imports(repository: Path) -> None:
    """The GPAW worker is a script that runs at import; it has its own tests."""
    for path in modules(repository):
        if path.name not in ("gpaw_worker.py", "__main__.py"):
            parts = path.relative_to(repository).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


def test_every_module_says_what_it_is_for(repository: Path) -> None:
    silent = [str(path) for path in modules(repository) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_wheel_carries_every_file_of_the_package(repository: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if name.startswith("al_leignn/")}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
        entry = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("entry_points.txt"))
    package = repository / "al_leignn"
    expected = {
        path.relative_to(repository).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"al_leignn/dft_inputs/{path.name}" for path in (repository / "dft_inputs").iterdir()}
    assert shipped == expected
    assert "al_leignn/py.typed" in shipped
    assert f"\nVersion: {al_leignn.__version__}\n" in metadata
    assert "al-leignn = al_leignn.cli.app:main" in entry


def test_import_rules_hold(repository: Path) -> None:
    """The contracts of pyproject.toml: arrows point down, stages are siblings, heavy libraries stay where they belong."""
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([lint, "--no-cache"], cwd=repository, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr

"""docs/laws.md tells the truth: every law it lists is tested, in as many cases as it says."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROW = re.compile(r"^\| .+ \| `(test_\w+\.py::test_\w+)` \| (\d+) \|$", re.MULTILINE)


def test_laws_are_tested_in_as_many_cases_as_the_page_says(request: pytest.FixtureRequest, repository: Path) -> None:
    stated = {name: int(cases) for name, cases in ROW.findall((repository / "docs" / "laws.md").read_text())}
    assert len(stated) > 20
    files = {name.split("::")[0] for name in stated}
    collected: Counter[str] = Counter()
    for item in request.session.items:
        if isinstance(item, pytest.Function):
            settings = getattr(item.function, "_hypothesis_internal_use_settings", None)
            collected[f"{item.path.name}::{item.originalname}"] += settings.max_examples if settings else 1
    if not files <= {name.split("::")[0] for name in collected}:
        pytest.skip("needs the tests of model and explore together")
    assert {name: collected[name] for name in stated} == stated

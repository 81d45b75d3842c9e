"""Documents name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_test_of_the_reliability_table_exists():
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 40
    for file, test in named:
        content = (ROOT / "tests" / file).read_text("utf-8")
        assert not test or f"def {test}(" in content, f"{file}::{test}"

"""No damaged input ends with a traceback: a few of every reader; `benchmarks/fuzz.py` reads thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_kit import TARGETS, fuzz

COUNT = 15


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_input_is_an_error_of_zoo(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert fuzz(name, TARGETS[name], tmp_path / "input", COUNT) == []

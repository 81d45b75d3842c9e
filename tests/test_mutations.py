"""The faults that `tools/mutations.py` puts in can be put in: the text of each is there once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "mutations.py"


def test_every_fault_can_be_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    if not TOOL.is_file():
        pytest.skip("the tools are not here")
    spec = importlib.util.spec_from_file_location("mutations", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutations", module)  # dataclasses look there
    spec.loader.exec_module(module)
    assert len({fault.name for fault in module.FAULTS}) == len(module.FAULTS) >= 25
    for fault in module.FAULTS:
        text = (module.ROOT / fault.file).read_text("utf-8")
        assert text.count(fault.old) == 1 and fault.old != fault.new, fault.name
        assert all((module.ROOT / test).is_file() for test in fault.tests if test.endswith(".py")), fault.name

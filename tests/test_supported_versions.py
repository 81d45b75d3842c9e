"""What pyproject.toml, the constraints of the oldest versions and the README say of Python and libraries agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]


def test_the_constraints_are_the_lower_bounds() -> None:
    extras = PROJECT["optional-dependencies"]
    bounds = dict(line.split(">=") for line in [*PROJECT["dependencies"], *extras["test"], *extras["dev"]])
    lines = [line for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines() if not line.startswith("#")]
    assert dict(line.split("==") for line in lines) == bounds


def test_the_supported_pythons_are_said_alike() -> None:
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert f"Python {oldest} to {newest}" in (ROOT / "README.md").read_text()


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A folder for the PATH with commands that claim to be Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "sed", "sort", "dirname"):
        (folder / tool).symlink_to(next(p for d in os.defpath.split(":") if (p := Path(d) / tool).exists()))
    return folder


def _claim(folder: Path, version: str, works: bool) -> Path:
    """A command that answers the question after its version as a Python of that version would, or fails as the shim
    of a Python that is not installed does."""
    file = folder / f"python{version}"
    answer = f'[ "$3" = "{version}" ]' if works else "exit 127"
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)
    return file


def _found(folder: Path, *arguments: str) -> str:
    """What `tools/python.sh` prints where the PATH has that folder alone."""
    environment = {"PATH": str(folder), "PYENV_ROOT": str(folder / "none")}
    command = ["sh", ROOT / "tools" / "python.sh", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else f"error: {result.stderr}"


def test_the_newest_python_that_works_is_found(pythons: Path) -> None:
    assert _found(pythons).startswith("error: no Python of the supported versions was found")
    oldest = _claim(pythons, PYTHONS[0], works=True)
    middle = _claim(pythons, PYTHONS[1], works=True)
    _claim(pythons, PYTHONS[-1], works=False)
    _claim(pythons, "3.99", works=True)
    assert (_found(pythons), _found(pythons, "oldest")) == (str(middle), str(oldest))


def test_this_python_is_a_supported_one() -> None:
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS

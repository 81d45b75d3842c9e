"""A plugin that hangs or ends the process while it is imported is set aside, and takes no command with it."""

from __future__ import annotations

import json
from pathlib import Path

import plugin_kit as kit
import pytest

MARK = "import pathlib, os\npathlib.Path(os.environ['IMPORTS']).open('a').write(__name__ + chr(10))\n"
"""Records each import of a plugin in a file."""


@pytest.fixture
def installed(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A path with broken and whole plugins that ship no catalogue, and the variables to run zoo with."""
    folder = tmp_path / "installed"
    kit.distribution(folder, "hangs", "import time\ntime.sleep(600)\n")
    kit.distribution(folder, "exits", "import os\nprint('a last word', flush=True)\nos._exit(7)\n")
    kit.distribution(folder, "killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    kit.distribution(folder, "whole", MARK + kit.weights_plugin("resnet20.stranger"))
    variables = {"ZOO_PLUGIN_SECONDS": "4", "ZOO_CACHE": str(tmp_path / "cache"), "IMPORTS": str(tmp_path / "imports")}
    return folder, variables


def test_broken_plugins_are_named_and_the_others_listed(installed: tuple[Path, dict[str, str]]):
    folder, variables = installed
    first = kit.zoo("list", "weights", "resnet20*", paths=(folder,), **variables)
    assert first.returncode == 0 and "resnet20.stranger" in first.stdout and "resnet20.cifar10" in first.stdout
    assert "a last word" not in first.stdout
    for name, reason in (
        ("hangs", "its import was not finished after 4 s; it hangs, or needs more time"),
        ("exits", "its import ended the process with exit code 7"),
        ("killed", "its import ended the process with signal 9"),
    ):
        assert f"plugin {name}/{name} is not used (failed): {reason}" in first.stderr
    # The second command uses what the first has kept: nothing is examined, and nobody's code is imported.
    second = kit.zoo("list", "weights", "--json", paths=(folder,), **variables)
    assert "examining" in first.stderr and "examining" not in second.stderr
    assert "resnet20.stranger" in {row["name"] for row in json.loads(second.stdout)}
    assert Path(variables["IMPORTS"]).read_text().splitlines() == ["whole_plugin"]


def test_a_changed_file_is_examined_again(installed: tuple[Path, dict[str, str]]):
    folder, variables = installed
    only = {**variables, "ZOO_PLUGINS": "exits"}
    assert kit.records(kit.zoo("plugins", "--json", paths=(folder,), **only))["exits"]["state"] == "failed"
    (folder / "exits_plugin" / "__init__.py").write_text(kit.weights_plugin("resnet20.mended"))
    mended = kit.records(kit.zoo("plugins", "--json", paths=(folder,), **only))
    assert mended["exits"]["state"] == "ok"


def test_no_name_of_zoos_own_imports_strangers(installed: tuple[Path, dict[str, str]]):
    folder, variables = installed
    program = "from zoo.registry import registry; print(registry().backbone('resnet20').family)"
    done = kit.run("-c", program, paths=(folder,), **variables)
    assert done.stdout == "CIFAR ResNet\n" and "examining" not in done.stderr
    assert not Path(variables["IMPORTS"]).exists()

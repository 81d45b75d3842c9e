"""Helpers that write distributions with a zoo plugin as an installer would, as files on a path."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def distribution(folder: Path, name: str, source: str, *, catalogue: str = "", version: str = "1.0") -> str:
    """Write the package `<name>_plugin` with `source` and the metadata of distribution `name`; return its module."""
    module = f"{name.replace('-', '_')}_plugin"
    package = folder / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    if catalogue:
        (package / "registry.toml").write_text(catalogue)
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{name} = {module}\n")
    sys.modules.pop(module, None)  # another test's distribution may have had that name
    importlib.invalidate_caches()
    return module


def weights_plugin(*names: str, extra: str = "") -> str:
    """Return the source of a plugin that gives weights of these names and needs no jax."""
    return (
        "import zoo\n\n@zoo.hookimpl\ndef zoo_weights():\n"
        f"    return [zoo.WeightSpec(name, source='hf://org/' + name) for name in {list(names)!r}]\n{extra}\n"
    )


def backbone_plugin(*names: str) -> str:
    """Return the source of a plugin that declares backbones of these names and needs no jax before one is built."""
    return (
        "import zoo\nfrom zoo.registry.spec import ClassifierLayout, Stage\n\n"
        "def build(**options):\n    raise NotImplementedError\n\n@zoo.hookimpl\ndef zoo_backbones():\n"
        "    return [zoo.BackboneSpec(name, 'Test', build, (Stage('stem', 8, 2, modules=('stem',)),), "
        f"ClassifierLayout('fc')) for name in {list(names)!r}]\n"
    )


def run(
    *command: str, paths: tuple[Path, ...] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run python with `paths` in front, in an environment without the user's settings, with the cache of the tests."""
    environment = {key: value for key, value in os.environ.items() if key == "ZOO_CACHE" or not key.startswith("ZOO_")}
    # Plugins are imported without an examination, which is tested by itself: each would start another process.
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "ZOO_CONFIG": "/nonexistent"}
    environment |= {"ZOO_PLUGIN_SECONDS": "0", **variables}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd or ROOT,
        timeout=120,
        check=False,
    )


def zoo(*args: str, **where: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process."""
    return run("-m", "zoo", *args, **where)  # type: ignore[arg-type]


def called(*args: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process: without the seconds that a process takes to import everything, and with
    the environment, the plugins and the folder of the test."""
    import zoo.cli

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv, code = sys.argv, ["zoo", *map(str, args)], 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            zoo.cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(["zoo", *map(str, args)], code, out.getvalue(), err.getvalue())


def records(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """Return the plugin records that `zoo plugins --json` printed, by name."""
    assert result.returncode == 0, result.stderr
    return {record["name"]: record for record in json.loads(result.stdout)}

"""The checks of `zoo doctor`: versions, devices, import path, folders, catalogues and plugins.

Checks that may hang (the driver of an accelerator, a plugin) run in a separate process with a time limit.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import zoo
from zoo import settings
from zoo.errors import ZooError
from zoo.registry import catalogue

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "huggingface-hub", "safetensors", "numpy")
RECOMMENDED = (3, 12)
"""Oldest Python version that the newest JAX supports."""
TIME_LIMIT = 60.0
"""Default time limit in seconds, for the devices and for the plugins."""

_ENOUGH = 2**30  # free bytes
_DEVICES = """
import json, jax
print(json.dumps({"backend": jax.default_backend(), "devices": [str(d) for d in jax.devices()]}))
"""
_PLUGINS = """
import json, sys
from zoo.registry import Registry
out, sys.stdout = sys.stdout, sys.stderr
registry = Registry(strict=False)
for name in registry.loading():
    print(json.dumps({"begin": name}), file=out, flush=True)
records = [[r.distribution + "/" + r.name, r.state, r.reason] for r in registry.records()]
print(json.dumps({"records": records}), file=out)
"""


@dataclass
class Section:
    """Result of one check.

    Attributes:
        title: heading.
        facts: name -> value, for people to read.
        problems: what is wrong, each with advice on what to do.
    """

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def examine(limit: float = TIME_LIMIT) -> Iterator[Section]:
    """Yield the sections, each as soon as its check has finished. `limit` is in seconds."""
    yield versions()
    yield devices(limit)
    yield shadows()
    yield folders()
    yield overlays()
    yield plugins(limit)


def versions() -> Section:
    """Check the versions of Python and of the libraries that zoo uses."""
    section = Section("versions", {"zoo": zoo.__version__, "python": platform.python_version()})
    for package in PACKAGES:
        try:
            section.facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            section.problems.append(f"{package} is not installed; run `pip install flax-zoo` again.")
    section.facts["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    if sys.version_info < RECOMMENDED:
        section.facts["advice"] = (
            "Use Python 3.12 or newer: the newest JAX needs it, and runs models on a CPU up to 1.6 times as fast."
        )
    return section


def devices(limit: float) -> Section:
    """List the devices that jax finds."""
    section = Section("devices")
    lines, problem = _ask(_DEVICES, limit)
    if problem:
        section.problems.append(f"jax cannot list its devices: {problem}; set JAX_PLATFORMS=cpu to use the CPU only.")
    elif lines:
        section.facts = lines[-1]
    return section


def shadows() -> Section:
    """Look for other import packages called `zoo`, which Python might import instead of this one.

    Another project on PyPI installs one, and a folder of that name beside the user's scripts is enough.
    """
    here = Path(zoo.__file__).resolve().parent
    section = Section("import package", {"zoo": str(here)})
    for entry in dict.fromkeys([str(Path.cwd()), *sys.path]):
        for other in (Path(entry or ".") / "zoo", Path(entry or ".") / "zoo.py"):
            if other.suffix != ".py" and not (other / "__init__.py").is_file():
                continue
            if other.exists() and other.resolve() != here:
                section.problems.append(
                    f"{other} is another import package `zoo`; Python may import it instead of this one. "
                    "Start Python in another folder, or uninstall the distribution that the package belongs to."
                )
    if others := _other_owners():
        section.problems.append(
            f"{', '.join(others)} also installs an import package `zoo` and overwrites files of this one: run "
            f"`pip uninstall {' '.join(others)}`, then `pip install --force-reinstall --no-deps flax-zoo`."
        )
    return section


def _other_owners() -> list[str]:
    """Return the names of other distributions that install `zoo/__init__.py`."""
    owners = set()
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        lines = (distribution.read_text("RECORD") or "").splitlines()
        if name and name.lower() != "flax-zoo" and any(line.startswith("zoo/__init__.py,") for line in lines):
            owners.add(name)
    return sorted(owners)


def folders() -> Section:
    """Check that the folders zoo writes to are writable and have enough free space."""
    section = Section("folders")
    for title, folder in (("cache", settings.cache_dir()), ("hub cache", settings.hub_cache_dir())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        state = "" if folder.exists() else ", does not exist yet"
        section.facts[title] = f"{folder} ({free / 2**30:.1f} GiB free{state})"
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            section.problems.append(
                f"{existing} cannot be written to; set ZOO_CACHE and HF_HUB_CACHE to other folders."
            )
        elif free < _ENOUGH:
            section.problems.append(
                f"{existing} has less than 1 GiB free, and weights may not fit: free some space, or set ZOO_CACHE "
                "and HF_HUB_CACHE to other folders."
            )
    section.facts["settings"] = str(settings.config_dir())
    section.facts["offline"] = settings.offline()
    if endpoint := settings.hub_endpoint():
        section.facts["hub"] = endpoint
    return section


def overlays() -> Section:
    """Check the catalogue of zoo and the registry.toml files of the user."""
    section = Section("catalogue")
    path = catalogue.first_party_path()
    section.facts["catalogue"] = str(path)
    if path is None:
        section.problems.append(
            "the registry.toml of zoo is missing, so listing imports every plugin: install zoo again."
        )
    _try(section, lambda: path and catalogue.read_catalogue(path, "flax-zoo"))
    found = _try(section, catalogue.read_overlay)
    section.facts["overlays"] = [str(file) for file in found.files] if found else []
    if found:
        from zoo.registry.installed import Selection
        from zoo.registry.loader import discover

        section.problems += Selection(None, frozenset(), found).unknown(discover())
    return section


def plugins(limit: float) -> Section:
    """Load every plugin and list its state."""
    section = Section("plugins")
    lines, problem = _ask(_PLUGINS, limit)
    records = next((line["records"] for line in lines if "records" in line), None)
    if records is None:
        begun = [line["begin"] for line in lines if "begin" in line]
        where = f", while loading {begun[-1]}: see `zoo plugins check {begun[-1]}`" if begun else ""
        section.problems.append(f"the plugins cannot be loaded: {problem or 'no answer'}{where}.")
        return section
    for name, state, reason in records:
        section.facts[name] = f"{state}: {reason}" if reason else state
        if state in ("failed", "incompatible"):
            section.problems.append(f"plugin {name} {state}: {reason}; see `zoo plugins check {name}`.")
    return section


def _try(section: Section, action: Callable[[], Any]) -> Any:
    """Return the result of `action`. If it raises an error of zoo, add this as a problem and return None."""
    try:
        return action()
    except ZooError as error:
        section.problems.append(str(error))
        return None


def _ask(program: str, limit: float) -> tuple[list[dict[str, Any]], str]:
    """Run `program` in a new interpreter. Return its JSON lines, and its problem or an empty string."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        out, trouble = process.communicate(timeout=limit)
        problem = "" if process.returncode == 0 else (trouble.strip().splitlines() or ["no message"])[-1]
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        problem = f"no answer within {limit:g} s"
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines], problem

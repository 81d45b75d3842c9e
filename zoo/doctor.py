"""What `zoo doctor` looks at: versions, devices, folders, what shadows what, plugins, the user's settings.

Whatever may hang (an accelerator's driver, a plugin) is asked in a process of its own with a time limit.
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
"""Least Python that the newest JAX supports."""
TIME_LIMIT = 60.0
"""Seconds that devices and plugins are each given to answer."""

_ENOUGH = 2**30
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
    """One subject: facts for people, and problems, each with what to do."""

    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def examine(limit: float = TIME_LIMIT) -> Iterator[Section]:
    """All sections, each as soon as it is known."""
    yield versions()
    yield devices(limit)
    yield shadows()
    yield folders()
    yield overlays()
    yield plugins(limit)


def versions() -> Section:
    """Python and the libraries that zoo stands on."""
    section = Section("versions", {"zoo": zoo.__version__, "python": platform.python_version()})
    for package in PACKAGES:
        try:
            section.facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            section.problems.append(f"{package} is not installed; run `pip install flax-zoo` again.")
    section.facts["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    if sys.version_info < RECOMMENDED:
        section.facts["advice"] = (
            "Python 3.12 or newer: the newest JAX needs it, and runs models on a CPU up to 1.6 times as fast."
        )
    return section


def devices(limit: float) -> Section:
    """What jax finds."""
    section = Section("devices")
    lines, problem = _ask(_DEVICES, limit)
    if problem:
        section.problems.append(f"jax cannot say its devices: {problem}; try JAX_PLATFORMS=cpu to go without them.")
    elif lines:
        section.facts = lines[-1]
    return section


def shadows() -> Section:
    """Another import package called `zoo`: another project ships one, and a folder of that name is enough."""
    here = Path(zoo.__file__).resolve().parent
    section = Section("import package", {"zoo": str(here)})
    for entry in dict.fromkeys([str(Path.cwd()), *sys.path]):
        for other in (Path(entry or ".") / "zoo", Path(entry or ".") / "zoo.py"):
            if other.suffix != ".py" and not (other / "__init__.py").is_file():
                continue
            if other.exists() and other.resolve() != here:
                section.problems.append(
                    f"{other} is another import package `zoo`; Python may import it instead of this one. "
                    "Start in another folder, or uninstall the distribution it belongs to."
                )
    if others := _other_owners():
        section.problems.append(
            f"{', '.join(others)} also installs an import package `zoo`, over the files of this one: "
            f"`pip uninstall {' '.join(others)}`, then `pip install --force-reinstall --no-deps flax-zoo`."
        )
    return section


def _other_owners() -> list[str]:
    """Distributions other than ours whose files include `zoo/__init__.py`."""
    owners = set()
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        lines = (distribution.read_text("RECORD") or "").splitlines()
        if name and name.lower() != "flax-zoo" and any(line.startswith("zoo/__init__.py,") for line in lines):
            owners.add(name)
    return sorted(owners)


def folders() -> Section:
    """Where zoo writes, and how much room there is."""
    section = Section("folders")
    for title, folder in (("cache", settings.cache_dir()), ("hub cache", settings.hub_cache_dir())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        state = "" if folder.exists() else ", not made yet"
        section.facts[title] = f"{folder} ({free / 2**30:.1f} GiB free{state})"
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            section.problems.append(
                f"{existing} cannot be written to; set ZOO_CACHE and HF_HUB_CACHE to other folders."
            )
        elif free < _ENOUGH:
            section.problems.append(f"{existing} has less than 1 GiB free; weights may not fit.")
    section.facts["settings"] = str(settings.config_dir())
    section.facts["offline"] = settings.offline()
    if endpoint := settings.hub_endpoint():
        section.facts["hub"] = endpoint
    return section


def overlays() -> Section:
    """The catalogue and the user's own registry.toml files."""
    section = Section("catalogue")
    path = catalogue.first_party_path()
    section.facts["catalogue"] = str(path)
    if path is None:
        section.problems.append(
            "zoo's own registry.toml is missing: listing must import every plugin. Install zoo again."
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
    """How every plugin fares."""
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
    try:
        return action()
    except ZooError as error:
        section.problems.append(str(error))
        return None


def _ask(program: str, limit: float) -> tuple[list[dict[str, Any]], str]:
    """Run `program` in a fresh interpreter: the JSON lines it printed, and what went wrong."""
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

"""Import a third-party plugin in a process of its own before it is imported here.

A plugin that hangs, ends the process, or crashes while it is imported would take the whole command with it. Its
examination has a deadline and takes nobody along. The outcome is kept for each version of its files, so that it costs
nothing the next time: the state of the plugin, and the catalogue of what it gives. With the catalogue, a plugin that
ships none is listed without being imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo import settings
from zoo.disk import write_whole
from zoo.registry.catalogue import Row, read_catalogue

if TYPE_CHECKING:
    from zoo.registry.loader import Candidate, State

SHOWN = 300
"""Characters of what a plugin printed last that are shown when it ended the process."""


@dataclass(frozen=True)
class Examination:
    """The outcome of importing a plugin in a process of its own.

    Attributes:
        state: `ok`, `failed` or `incompatible`.
        reason: one sentence; empty for `ok`.
        traceback: of the error, if there was one.
        catalogue: what the plugin gives, as the text of a `registry.toml`.
    """

    state: State
    reason: str = ""
    traceback: str = ""
    catalogue: str = ""

    def rows(self, candidate: Candidate) -> list[Row]:
        """Return what the plugin gives, as rows of a catalogue. Raises `ConfigError` if a row is not valid."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "registry.toml"
            path.write_text(self.catalogue, "utf-8")
            return read_catalogue(path, candidate.distribution).get(candidate.module, [])


def examined(candidate: Candidate) -> Examination | None:
    """Return the examination of a plugin: the kept one, or a new one. None if examinations are switched off."""
    seconds = settings.plugin_seconds()
    if not seconds or not sys.executable:
        return None
    kept = _kept(candidate)
    with suppress(OSError, ValueError, TypeError):
        return Examination(**json.loads(kept.read_text("utf-8")))
    examination = _examine(candidate, seconds)
    with suppress(OSError):  # without a cache, it is examined again the next time
        write_whole(kept, [json.dumps(asdict(examination)).encode("utf-8", "surrogateescape")])
    return examination


def forget(candidate: Candidate) -> None:
    """Forget the examination of a plugin, so that it is examined again."""
    with suppress(OSError):
        _kept(candidate).unlink()


def _kept(candidate: Candidate) -> Path:
    """Return the file that keeps the examination of this version of a plugin's files, under this Python and zoo."""
    facts = [asdict(candidate), sys.version, zoo.__version__, sys.prefix, *_files(candidate)]
    key = hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()
    return settings.cache_dir() / "plugins" / f"{candidate.distribution}-{candidate.version}-{key[:16]}.json"


def _files(candidate: Candidate) -> Iterator[tuple[str, int, int]]:
    """Yield (path, size, modification time in ns) of the Python files of a plugin's top-level package or module."""
    try:
        found = util.find_spec(candidate.module.partition(".")[0])
    except (ImportError, ValueError, AttributeError):
        return
    folders = (found and found.submodule_search_locations) or ()
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.py"))]
    if found and found.origin and not files:
        files = [Path(found.origin)]
    for file in files:
        with suppress(OSError):
            stat = file.stat()
            yield str(file), stat.st_size, stat.st_mtime_ns


def _examine(candidate: Candidate, seconds: float) -> Examination:
    print(f"examining the plugin {candidate.distribution} {candidate.version}, once per version", file=sys.stderr)
    # The process must not take an accelerator away from this one.
    path = os.pathsep.join(map(str, filter(None, sys.path)))
    environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "ZOO_PLUGIN_SECONDS": "0"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, open(Path(folder) / "said", "w+b") as said:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-m", "zoo.registry.examine", json.dumps(asdict(candidate)), str(outcome)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return Examination(
                "failed",
                f"its import was not finished after {seconds:g} s; it hangs, or needs more time: set "
                f"ZOO_PLUGIN_SECONDS, then run `zoo plugins check {candidate.name}`.",
            )
        with suppress(OSError, ValueError, TypeError):
            return Examination(**json.loads(outcome.read_text("utf-8")))
        said.seek(0)
        last = said.read().decode("utf-8", "replace").strip()[-SHOWN:]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Examination("failed", f"its import ended the process with {how}.", last)


def main(described: str, outcome: str) -> None:
    """Import the plugin that a JSON text describes, and write the outcome to a file."""
    from zoo.registry import derive, loader

    candidate = loader.Candidate(**json.loads(described))
    given, state, reason, trace = loader.attempt(candidate)
    text = ""
    if given:
        try:
            text = derive.catalogue([(candidate.module, given)], "zoo", None)
        except Exception as error:
            state, reason = "failed", f"it cannot be listed: {error}"
    Path(outcome).write_text(json.dumps(asdict(Examination(state, reason, trace, text))), "utf-8")
    os._exit(0)  # threads or exit handlers of the plugin must not keep the process


if __name__ == "__main__":
    main(*sys.argv[1:])

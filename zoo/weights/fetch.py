"""From a source, as a user writes it, to a verified local file.

    hf://org/repo[@revision][/file/in/repo]     a repository on the Hub
    path/to/model.safetensors                   a local file
    path/to/folder                              a local folder with such a file
    scheme://...                                a scheme that a plugin's `zoo_fetch` hook handles

Sources are parsed strictly. Anything that could leave a folder, contains a password or uses look-alike characters is
refused before any request is made.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.errors import ConfigError, FetchError, WeightsError
from zoo.registry.source import ACCEPTED, HUB, PATH, scheme
from zoo.registry.source import parse_hub as parse_source
from zoo.weights import hub, lock, sniff

CONFIG = "config.json"
_LARGEST_CONFIG = 10_000_000

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file whose bytes were verified.

    Attributes:
        path: where the file is.
        source: where it came from, without revision and file.
        revision: commit on the Hub; empty for other sources.
        sha256: of the file.
    """

    path: Path
    source: str
    revision: str
    sha256: str


def fetch(
    source: str | os.PathLike[str],
    file: str = "model.safetensors",
    *,
    revision: str = "",
    sha256: str = "",
    offline: bool | None = None,
) -> Fetched:
    """Return the file at a source, downloading it if necessary.

    Args:
        source: see the module. It may name revision and file itself.
        file: name at the source. If a local folder lacks it, the only `*.safetensors` file there is taken.
        revision: branch, tag or commit on the Hub; empty for `main`.
        sha256: expected hash, if it is known. Otherwise that of the first download, from `zoo.lock`.
        offline: make no request; None means `zoo.settings.offline()`.
    Raises:
        FetchError: if the source is not accepted, or the file cannot be fetched.
        WeightsError: if the file has another hash than expected.
    """
    text, sha256 = os.fspath(source), sha256.lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise FetchError(f"{sha256!r} is not a sha256, which has 64 hexadecimal digits.")
    if not PATH.fullmatch(file):
        raise FetchError(f"{file!r} is not a file name inside a source. Use letters, digits, '.', '_', '-' and '/'.")
    offline = settings.offline() if offline is None else offline
    kind = scheme(text)
    if kind == "hf":
        wanted = parse_hub(text, file, revision)
        verified = hub.obtain(wanted, sha256, offline=offline)
        return Fetched(verified.path, wanted.source, verified.commit, verified.sha256)
    if kind:
        return _from_plugin(text, file, revision, sha256, offline)
    return _from_disk(text, file, sha256)


def fetch_config(
    source: str | os.PathLike[str],
    file: str = "model.safetensors",
    *,
    name: str = CONFIG,
    revision: str = "",
    offline: bool | None = None,
) -> dict[str, Any] | None:
    """Return the `config.json` beside the weights at a source, or None if there is none.

    On the Hub it comes from the same commit as the weights.

    Args:
        source: see `fetch`.
        file: name of the weights' file.
        name: name of the configuration file.
        revision: see `fetch`.
        offline: see `fetch`.
    Raises:
        FetchError: as in `fetch`, and if zoo is offline and does not know whether the file exists.
        WeightsError: if the file is not a JSON object.
    """
    text = os.fspath(source)
    offline = settings.offline() if offline is None else offline
    kind = scheme(text)
    if kind == "hf":
        path = _config_on_hub(parse_hub(text, file, revision), name, offline)
    elif kind:
        path = None  # a plugin fetches single files, so the layout of its source is unknown
    else:
        place = settings.expanded(text)
        path = (place if place.is_dir() else place.parent) / name
    return _read_config(path) if path and path.is_file() else None


def parse_hub(source: str, file: str = "model.safetensors", revision: str = "") -> hub.HubFile:
    """Parse `hf://org/repo[@revision][/file]`.

    Args:
        source: the text.
        file: file to use if the source names none.
        revision: revision to use if the source names none.
    Raises:
        FetchError: if the source is spelled in another way, or names another revision than the argument.
    """
    repo, named, inside = parse_source(source, revision)
    return hub.HubFile(repo, named or "main", inside or file)


def _from_disk(source: str, file: str, sha256: str) -> Fetched:
    try:
        place = settings.expanded(source)
    except ConfigError as error:
        raise FetchError(f"there is no file or folder {source[:100]!r}: {error}") from error
    path = _in_folder(place, file) if place.is_dir() else place
    if not path.is_file():
        hint = f" For the Hub, write hf://{source}." if HUB.fullmatch(source) else ""
        raise FetchError(f"there is no file or folder {source!r}.{hint} {ACCEPTED}")
    try:
        digest = hub.digest_of(path)
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}.") from error
    if sha256 and digest != sha256:
        raise WeightsError(
            f"{path} has sha256 {digest}, but {sha256} was asked for. It is another file, or was damaged or changed."
        )
    return Fetched(path, source, "", digest)


def _in_folder(folder: Path, file: str) -> Path:
    """Return `file` in the folder, else the index of its shards, else the only safetensors file."""
    for name in (file, file + ".index.json"):
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(folder.glob("*.safetensors")) if file.endswith(".safetensors") else []
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(path.name for path in candidates)
        raise FetchError(f"the folder {folder} has no {file!r} but several other files: {names}. Give the path of one.")
    raise FetchError(f"the folder {folder} has no {file!r}. Give a run directory or the path of a safetensors file.")


def _from_plugin(source: str, file: str, revision: str, sha256: str, offline: bool) -> Fetched:
    from zoo.registry import registry

    given = registry().fetch(source=source, file=file, revision=revision, offline=offline)
    if given is None:
        raise FetchError(f"no installed plugin fetches {source!r}. {ACCEPTED}")
    path = Path(given)
    if not path.is_file():
        raise FetchError(f"the plugin that fetches {source!r} returned {str(path)!r}, which is not a file.")
    digest, pin = hub.digest_of(path), lock.find(source, revision, file)
    expected = sha256 or (pin.sha256 if pin else "")
    if expected and digest != expected:
        way = "" if sha256 else f" If you trust the new file, run `{lock.COMMAND} {source}`."
        raise WeightsError(f"{source} ({file}) has sha256 {digest}, but {expected} was expected: it changed.{way}")
    if not expected:
        lock.record(lock.Pin(source, revision, file, "", digest))
    return Fetched(path, source, "", digest)


def _config_on_hub(weights: hub.HubFile, name: str, offline: bool) -> Path | None:
    folder = weights.file.rpartition("/")[0]
    wanted = hub.HubFile(weights.repo, weights.revision, f"{folder}/{name}" if folder else name)
    try:
        return hub.obtain(wanted, offline=offline).path
    except hub.NoSuchFileError as error:
        # Record that the commit has no such file, so that the next use makes no request.
        pin = lock.Pin(wanted.source, wanted.revision, wanted.file, error.commit, "")
        if error.commit and lock.find(wanted.source, wanted.revision, wanted.file) != pin:
            lock.record(pin)
        return None


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise WeightsError(
            f"{path} has {path.stat().st_size} bytes; zoo reads configurations of at most {_LARGEST_CONFIG}."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error}); it is {sniff.describe(path)}.") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a JSON object.")
    return config

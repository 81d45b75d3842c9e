"""From a source, as a user writes it, to a verified local file.

    hf://org/repo[@revision][/file/in/repo]     a repository on the hub
    path/to/model.safetensors                   a local file
    path/to/folder                              a local folder that holds one
    scheme://...                                whatever a plugin's `zoo_fetch` hook knows

Sources are parsed strictly: whatever could lead out of a folder, carry a password or only look like a name is refused
before any request is made.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.errors import FetchError, WeightsError
from zoo.weights import hub, lock, sniff

ACCEPTED = "Accepted: hf://org/repo[@revision][/file], a local file or folder, or a scheme that a plugin knows."

CONFIG = "config.json"
_LARGEST_CONFIG = 10_000_000

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# Letters, digits, "." "_" "-", and no leading dot: neither "..", nor a hidden file, nor anything that only looks alike.
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_HUB = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?(?:/(?P<file>{_PART}(?:/{_PART})*))?")
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A local file whose bytes were verified.

    Attributes:
        path: where it is. source: where it came from, without revision and file.
        revision: the commit on the hub; empty elsewhere. sha256: of the file.
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
    """The file at a source, downloaded when it has to be.

    Args:
        source: see the module. It may name revision and file itself.
        file: name at the source. In a local folder without it, the only `*.safetensors` there will do.
        revision: branch, tag or commit on the hub; `main` where nothing is said.
        sha256: of the file where it is known. Else the hash of the first download holds (`zoo.lock`).
        offline: make no request; None asks `zoo.settings.offline()`.
    Raises:
        FetchError: for a source that is not accepted, or a file that cannot be had.
        WeightsError: for a file with other bytes than expected.
    """
    text, sha256 = os.fspath(source), sha256.lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise FetchError(f"sha256 {sha256!r} is none: it must be 64 hexadecimal digits.")
    if not _PATH.fullmatch(file):
        raise FetchError(f"{file!r} is no file name inside a source: use letters, digits, '.', '_', '-' and '/'.")
    offline = settings.offline() if offline is None else offline
    scheme = _scheme(text)
    if scheme == "hf":
        wanted = parse_hub(text, file, revision)
        found = hub.obtain(wanted, sha256, offline=offline)
        return Fetched(found.path, wanted.source, found.commit, found.sha256)
    if scheme:
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
    """`config.json` beside the weights at a source, or None where there is none. On the hub, of the same commit.

    Args: as for `fetch`; `file` is the weights', `name` that of another file of JSON.
    Raises:
        FetchError: as for `fetch`; offline also when it is not known whether there is one.
        WeightsError: when it is not a JSON object.
    """
    text = os.fspath(source)
    offline = settings.offline() if offline is None else offline
    scheme = _scheme(text)
    if scheme == "hf":
        path = _config_on_hub(parse_hub(text, file, revision), name, offline)
    elif scheme:
        path = None  # A plugin's source is one file; what else lies there is not ours to guess.
    else:
        place = Path(text).expanduser()
        path = (place if place.is_dir() else place.parent) / name
    return _read_config(path) if path and path.is_file() else None


def parse_hub(source: str, file: str = "model.safetensors", revision: str = "") -> hub.HubFile:
    """The parts of `hf://org/repo[@revision][/file]`; what the source does not say comes from the arguments.

    Raises:
        FetchError: for any other spelling, or when source and arguments contradict each other.
    """
    match = _HUB.fullmatch(source.removeprefix("hf://"))
    if not match or not source.startswith("hf://"):
        raise FetchError(
            f"{_shown(source)!r} is not spelled hf://org/repo[@revision][/file/in/repo], in letters, digits, '.', '_' "
            "and '-'."
        )
    if revision and not _PATH.fullmatch(revision):
        raise FetchError(f"{revision!r} is no revision: give a branch, a tag or a commit.")
    if match["revision"] and revision and match["revision"] != revision:
        raise FetchError(f"{source} names another revision than {revision!r}; say it once.")
    if re.search(r"--|\.\.|[.-](/|$)|\.git$", match["repo"]):
        raise FetchError(f"{match['repo']!r} cannot be a repository: no '--' or '..', and no '.' or '-' at an end.")
    return hub.HubFile(match["repo"], match["revision"] or revision or "main", match["file"] or file)


def _shown(source: str) -> str:
    """A source as it may be printed: without a user's name and password."""
    return re.sub(r"//[^/]*@", "//***@", source)


def _scheme(source: str) -> str:
    """The scheme of a source, empty for a path. Raises `FetchError` for those that zoo never reads."""
    if not source.strip():
        raise FetchError(f"the source is empty. {ACCEPTED}")
    match = _SCHEME.fullmatch(source)
    if not match:
        if source.lower().startswith(("hf:", "file:", "http:", "https:")):
            raise FetchError(f"{_shown(source)!r} lacks '//' after its scheme. {ACCEPTED}")
        return ""
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        raise FetchError(f"{_shown(source)!r}: give a local file as a plain path, without file://.")
    if scheme in ("http", "https"):
        raise FetchError(
            f"{_shown(source)!r}: zoo does not load from web addresses, which cannot be pinned. For the hub, write "
            "hf://org/repo[@revision][/file]; else download the file and give its path."
        )
    if scheme != "hf":
        _require_plain(source, rest)
    return match[1]


def _require_plain(source: str, rest: str) -> None:
    """What a plugin is never handed: passwords, ways upwards, characters that look like others."""
    if "@" in rest.split("/", 1)[0]:
        raise FetchError(f"{_shown(source)!r} carries a user name or password: leave it to the plugin's own settings.")
    if not rest.isascii() or not rest.isprintable() or " " in rest or "\\" in rest:
        raise FetchError(f"{_shown(source)!r} must be printable ASCII without spaces and backslashes.")
    if ".." in re.split(r"[/?#]|%2f", rest.lower().replace("%2e", ".")):
        raise FetchError(f"{_shown(source)!r} must not contain '..'.")


def _from_disk(source: str, file: str, sha256: str) -> Fetched:
    place = Path(source).expanduser()
    path = _in_folder(place, file) if place.is_dir() else place
    if not path.is_file():
        hint = f" For the hub, write hf://{source}." if _HUB.fullmatch(source) else ""
        raise FetchError(f"there is no file or folder {source!r}.{hint} {ACCEPTED}")
    try:
        digest = hub.digest_of(path)
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}.") from error
    if sha256 and digest != sha256:
        raise WeightsError(
            f"{path} has sha256 {digest}, but {sha256} was asked for: it is another file, or it was damaged or changed."
        )
    return Fetched(path, source, "", digest)


def _in_folder(folder: Path, file: str) -> Path:
    """`file` in the folder, else the index of its shards, else the only safetensors file."""
    for name in (file, file + ".index.json"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors")) if file.endswith(".safetensors") else []
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found) or "none"
    raise FetchError(
        f"the folder {folder} has no {file!r}, nor exactly one *.safetensors file (there: {names}). "
        "Give the file's path."
    )


def _from_plugin(source: str, file: str, revision: str, sha256: str, offline: bool) -> Fetched:
    from zoo.registry import registry

    given = registry().fetch(source=source, file=file, revision=revision, offline=offline)
    if given is None:
        raise FetchError(f"no installed plugin fetches {source!r}. {ACCEPTED}")
    path = Path(given)
    if not path.is_file():
        raise FetchError(f"the plugin that fetched {source!r} gave {str(path)!r}, which is no file.")
    digest, pin = hub.digest_of(path), lock.find(source, revision, file)
    expected = sha256 or (pin.sha256 if pin else "")
    if expected and digest != expected:
        way = "" if sha256 else f" If you trust the new one, `{lock.COMMAND} {source}`."
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
        # Remembered, so that the next use asks nobody.
        pin = lock.Pin(wanted.source, wanted.revision, wanted.file, error.commit, "")
        if error.commit and lock.find(wanted.source, wanted.revision, wanted.file) != pin:
            lock.record(pin)
        return None


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise WeightsError(f"{path} has {path.stat().st_size} bytes; a configuration has at most {_LARGEST_CONFIG}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error}); it is {sniff.describe(path)}.") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is no JSON object.")
    return config

"""Files from the Hugging Face hub, verified and pinned.

The hub's client returns a damaged file as good and asks the hub about a branch at every use. Here every file is
verified, a branch is pinned to the commit it first gave (`zoo.lock`), and a cached file costs no request.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from zoo import settings
from zoo.errors import FetchError, WeightsError
from zoo.weights import client, lock, sniff
from zoo.weights.client import HubFile, NoSuchFileError
from zoo.weights.disk import sha256 as sha256_of

__all__ = ["Found", "HubFile", "NoSuchFileError", "digest_of", "obtain"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A verified file in the hub's cache, the commit it belongs to, and its hash."""

    path: Path
    commit: str
    sha256: str


@dataclass(frozen=True, slots=True)
class _Expected:
    """What is known of a file before it is had; empty where nothing is."""

    commit: str
    sha256: str
    from_lock: bool


def obtain(wanted: HubFile, sha256: str = "", *, offline: bool = False) -> Found:
    """The file, from the cache where it is known to be right, else from the hub.

    Args:
        sha256: the file's hash where it is known; else that of the first download, from `zoo.lock`.
        offline: make no request.
    Raises:
        FetchError: when it cannot be had. `NoSuchFileError`: when the repository has no such file.
        WeightsError: when its bytes are not the expected ones.
    """
    if found := _held(wanted, sha256, offline):
        return found
    if offline:
        raise FetchError(
            f"{wanted} is not in the cache {settings.hub_cache_dir()}, and zoo is offline. Fetch it once with "
            "ZOO_OFFLINE and HF_HUB_OFFLINE unset, or give a local file or folder."
        )
    name = hashlib.sha256(str(wanted).encode()).hexdigest()[:32]
    with lock.exclusive(name, seconds=10 * client.PATIENCE):
        # Another process may have fetched it while this one waited.
        return _held(wanted, sha256, offline) or _download(wanted, sha256)


def _expected(wanted: HubFile, sha256: str) -> _Expected:
    pin = lock.find(wanted.source, wanted.revision, wanted.file)
    if pin and not pin.sha256:
        raise client.no_such_file(wanted, pin.commit)
    if pin and sha256 in ("", pin.sha256):
        return _Expected(pin.commit, pin.sha256, from_lock=not sha256)
    if wanted.pinned:
        return _Expected(wanted.revision, sha256, from_lock=False)
    # A hash that was given outranks the lock: the commit that was pinned may hold other bytes.
    return _Expected("" if sha256 else lock.commit_of(wanted.source, wanted.revision), sha256, from_lock=False)


def _held(wanted: HubFile, sha256: str, offline: bool) -> Found | None:
    """The file from the cache, verified; None when it must be asked for. Makes no request."""
    expected = _expected(wanted, sha256)
    if not (expected.commit or sha256 or offline):
        return None
    path = _cached(wanted, expected.commit or wanted.revision)
    if path is None:
        return None
    digest = digest_of(path)
    if not offline and expected.sha256 not in ("", digest):
        return None
    if _damaged(path, digest, expected.sha256):
        if not offline:
            return None
        raise WeightsError(
            f"the cached copy of {wanted} is damaged: {path} has sha256 {digest}, expected "
            f"{expected.sha256 or _announced(path)}. Unset ZOO_OFFLINE and HF_HUB_OFFLINE to fetch it again."
        )
    return _accept(wanted, expected, path, digest, sha256)


def _download(wanted: HubFile, sha256: str) -> Found:
    expected = _expected(wanted, sha256)
    about = client.ask(wanted, expected.commit)
    if expected.sha256 and _SHA256.fullmatch(about.etag or "") and about.etag != expected.sha256:
        raise _changed(wanted, expected, about.etag)
    # Left by another program, or damaged since.
    if (path := _cached(wanted, about.commit_hash)) and _damaged(path, digest_of(path), expected.sha256):
        _discard(path)
    for attempt in range(2):
        path = client.transfer(wanted, expected.commit, about.size, force=attempt > 0)
        digest = digest_of(path)
        if not _damaged(path, digest, expected.sha256):
            return _accept(wanted, expected, path, digest, sha256)
        announced, looks = expected.sha256 or _announced(path), _looks(path)
        _discard(path)
    raise WeightsError(
        f"{wanted} arrived damaged twice: sha256 {digest}, expected {announced}. What arrived is {looks}. It was "
        "deleted. A proxy, a login page or a full disk may be the cause, or the file was replaced: try another "
        f"network, or, to accept a file that its publisher changed, `{lock.COMMAND} {wanted.source}`."
    )


def _accept(wanted: HubFile, expected: _Expected, path: Path, digest: str, sha256: str) -> Found:
    """The verified file; what was not known before goes into the lock."""
    if expected.sha256 and digest != expected.sha256:
        raise _changed(wanted, expected, digest)
    commit = path.relative_to(_folder(wanted) / "snapshots").parts[0]
    pin = lock.Pin(wanted.source, wanted.revision, wanted.file, commit, digest)
    if not (wanted.pinned and sha256) and lock.find(pin.source, pin.revision, pin.file) != pin:
        lock.record(pin)
    return Found(path, commit, digest)


def _changed(wanted: HubFile, expected: _Expected, digest: str) -> WeightsError:
    if expected.from_lock:
        origin, way = f"recorded in {lock.path()}", f"forget the pin with `{lock.COMMAND} {wanted.source}`"
    else:
        origin, way = "asked for", "correct the sha256 that was given, or download the file and give its path"
    return WeightsError(
        f"{wanted} has sha256 {digest}, but {expected.sha256} was {origin}. Its publisher may have changed it, or it "
        f"was damaged or replaced. If you trust the new file, {way}."
    )


# --- The cache -------------------------------------------------------------------------------------------------------


def _folder(wanted: HubFile) -> Path:
    return settings.hub_cache_dir() / ("models--" + wanted.repo.replace("/", "--"))


def _cached(wanted: HubFile, revision: str) -> Path | None:
    """The cached file of a commit, or of the commit that a branch last stood for."""
    found = client.library().try_to_load_from_cache(
        wanted.repo, wanted.file, cache_dir=settings.hub_cache_dir(), revision=revision
    )
    if found is None or isinstance(found, str):
        return Path(found) if found else None
    raise client.no_such_file(wanted, revision)  # the client's mark for a file that it knows is not there


def _announced(path: Path) -> str:
    """The sha256 that the hub gave for a cached file, which names its blob; empty where it gave none."""
    # One step only: a blob can itself be a link into a store that uses other names.
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else ""


def _damaged(path: Path, digest: str, expected: str) -> bool:
    """Whether the file is not what the hub announced. An intact file that is not the expected one is no damage."""
    if digest == expected:
        return False
    if announced := _announced(path):
        return digest != announced
    return bool(expected) or (path.suffix == ".safetensors" and not sniff.is_safetensors(path))


def _looks(path: Path) -> str:
    return "of the right format" if sniff.is_safetensors(path) else sniff.describe(path)


def _discard(path: Path) -> None:
    """Delete a damaged file, so that no other program meets it either."""
    try:
        if path.is_symlink():
            (path.parent / os.readlink(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FetchError(f"{path} is damaged and cannot be deleted ({error.strerror}). Delete it by hand.") from error


_digests: dict[tuple[str, int, int, int, int], str] = {}


def digest_of(path: Path) -> str:
    """The file's sha256, computed once in a process for as long as the file does not change."""
    status = path.stat()
    key = (str(path), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    if key not in _digests:
        _digests[key] = sha256_of(path)
    return _digests[key]

"""Files from the Hugging Face Hub, verified and pinned.

The Hub's client returns damaged files as good, and makes a request for a branch at every use. Here every file is
verified, a branch is pinned to its commit at first use (`zoo.lock`), and a cached file costs no request.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from zoo import settings
from zoo.errors import FetchError, WeightsError
from zoo.weights import client, lock, sniff
from zoo.weights.client import HubFile, NoSuchFileError

__all__ = ["Found", "HubFile", "NoSuchFileError", "digest_of", "obtain"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A verified file in the Hub's cache, its commit and its hash."""

    path: Path
    commit: str
    sha256: str


@dataclass(frozen=True, slots=True)
class _Expected:
    """What is known about a file before it is fetched; empty if unknown.

    Attributes:
        commit: of the file.
        sha256: of the file.
        from_lock: whether the hash comes from `zoo.lock` and not from the caller.
    """

    commit: str
    sha256: str
    from_lock: bool


def obtain(wanted: HubFile, sha256: str = "", *, offline: bool = False) -> Found:
    """Return the file from the cache if it is there and verified, else from the Hub.

    Args:
        wanted: the file.
        sha256: expected hash, if it is known; otherwise that of the first download, from `zoo.lock`.
        offline: make no request.
    Raises:
        FetchError: if the file cannot be fetched.
        NoSuchFileError: if the repository has no such file.
        WeightsError: if the file has another hash than expected.
    """
    if cached := _held(wanted, sha256, offline):
        return cached
    if offline:
        raise FetchError(
            f"{wanted} is not in the cache {settings.hub_cache_dir()}, and zoo is offline. Fetch it once with "
            "ZOO_OFFLINE and HF_HUB_OFFLINE unset, or give a local file or folder."
        )
    name = hashlib.sha256(str(wanted).encode()).hexdigest()[:32]
    with lock.exclusive(name, seconds=10 * client.PATIENCE):
        # Look again: another process may have fetched the file while this one waited for the lock.
        return _held(wanted, sha256, offline) or _download(wanted, sha256)


def _expected(wanted: HubFile, sha256: str) -> _Expected:
    pin = lock.find(wanted.source, wanted.revision, wanted.file)
    if pin and not pin.sha256:
        raise client.no_such_file(wanted, pin.commit)
    if pin and sha256 in ("", pin.sha256):
        return _Expected(pin.commit, pin.sha256, from_lock=not sha256)
    if wanted.pinned:
        return _Expected(wanted.revision, sha256, from_lock=False)
    # A hash from the caller outranks the lock, because the pinned commit may hold another file.
    return _Expected("" if sha256 else lock.commit_of(wanted.source, wanted.revision), sha256, from_lock=False)


def _held(wanted: HubFile, sha256: str, offline: bool) -> Found | None:
    """Return the verified file from the cache, or None if a request is needed. Make no request."""
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
    # The client would reuse a cached copy, so delete it if it was damaged since, or by another program.
    if (path := _cached(wanted, about.commit_hash)) and _damaged(path, digest_of(path), expected.sha256):
        _discard(path)
    # A second, forced download repairs what was damaged in transit or in the client's cache of partial files.
    for attempt in range(2):
        path = client.transfer(wanted, expected.commit, about.size, force=attempt > 0)
        digest = digest_of(path)
        if not _damaged(path, digest, expected.sha256):
            return _accept(wanted, expected, path, digest, sha256)
        announced, looks = expected.sha256 or _announced(path), _looks(path)
        _discard(path)
    raise WeightsError(
        f"{wanted} arrived damaged twice: sha256 {digest}, expected {announced}. What arrived is {looks}. It was "
        "deleted. A proxy, a login page or a full disk may be the cause, or the file was replaced. Try another "
        f"network, or run `{lock.COMMAND} {wanted.source}` to accept a file that its publisher changed."
    )


def _accept(wanted: HubFile, expected: _Expected, path: Path, digest: str, sha256: str) -> Found:
    """Return the file after checking its hash, and record its pin in `zoo.lock` if it is new."""
    if expected.sha256 and digest != expected.sha256:
        raise _changed(wanted, expected, digest)
    commit = path.relative_to(_folder(wanted) / "snapshots").parts[0]
    pin = lock.Pin(wanted.source, wanted.revision, wanted.file, commit, digest)
    if not (wanted.pinned and sha256) and lock.find(pin.source, pin.revision, pin.file) != pin:
        if problem := settings.cache_problem():
            warnings.warn(f"{problem}: a later change of {wanted} would not be noticed.", stacklevel=2)
        else:
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
    """Return the cached file of a commit, or of a branch's last known commit, or None."""
    cached = client.library().try_to_load_from_cache(
        wanted.repo, wanted.file, cache_dir=settings.hub_cache_dir(), revision=revision
    )
    if cached is None or isinstance(cached, str):
        return Path(cached) if cached else None
    raise client.no_such_file(wanted, revision)  # anything else is the client's marker for a file known not to exist


def _announced(path: Path) -> str:
    """Return the sha256 that the Hub announced for a cached file, or an empty string."""
    # The cache links to a blob whose name is the ETag, the sha256 of LFS files. Follow one link only: the blob can
    # itself be a link into a store that uses other names.
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else ""


def _damaged(path: Path, digest: str, expected: str) -> bool:
    """Whether the file differs from what the Hub announced. Without an announcement, whether it looks damaged.

    An intact file with another hash than `expected` is not damaged.
    """
    if digest == expected:
        return False
    if announced := _announced(path):
        return digest != announced
    return bool(expected) or (path.suffix == ".safetensors" and not sniff.is_safetensors(path))


def _looks(path: Path) -> str:
    return "of the right format" if sniff.is_safetensors(path) else sniff.describe(path)


def _discard(path: Path) -> None:
    """Delete a damaged file from the cache, so that no other program uses it either."""
    try:
        if path.is_symlink():
            (path.parent / os.readlink(path)).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FetchError(f"{path} is damaged and cannot be deleted ({error.strerror}). Delete it by hand.") from error


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, computed once per process as long as the file does not change."""
    from zoo.data.content import content  # not before: the room of data imports NumPy

    return content(path).sha256

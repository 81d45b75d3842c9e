"""Requests to the Hugging Face Hub through its own client, with time limits, retries and errors a user can act on.

On its own, the client waits 23 seconds for a dead server and for ever for a slow one, follows any `Retry-After`, and
raises the errors of its HTTP library.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from zoo import settings
from zoo.errors import FetchError
from zoo.weights import lock

T = TypeVar("T")

PUBLIC = "https://huggingface.co"
WAITS = (0.5, 1.0, 2.0)
"""Seconds between attempts while the Hub is busy or cannot be reached; after the last one it is an error."""
LONGEST_WAIT = 10.0
"""Longest pause in seconds that the Hub may ask for; if it asks for more, the user decides."""
ANSWER = 10.0
"""Time limit in seconds of one request for metadata."""
PATIENCE = 60.0
"""Time limit in seconds of everything but the download itself, over all attempts."""
SLOWEST = 20_000.0
"""Slowest accepted download, in bytes per second."""

_TRANSIENT = {"TimeoutException", "NetworkError", "RemoteProtocolError"}
_BUSY = {408, 429, 500, 502, 503, 504}
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _TooSlowError(Exception):
    """A call exceeded its time limit."""


class NoSuchFileError(FetchError):
    """The repository exists but has no file of that name.

    Attributes:
        commit: the commit that lacks the file, if it is known.
    """

    commit: str = ""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a Hub repository.

    Attributes:
        repo: `org/name`.
        revision: branch, tag or commit.
        file: path inside the repository.
    """

    repo: str
    revision: str
    file: str

    @property
    def source(self) -> str:
        """The repository as a source in `zoo.lock`."""
        return f"hf://{self.repo}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, whose content never changes."""
        return bool(_COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}/{self.file}"


def library() -> Any:
    """Return the Hub's client, imported on first use."""
    if "huggingface_hub" not in sys.modules:
        # Read once, at import; with telemetry on, building a request can cost another request.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


def _endpoint() -> str:
    return (settings.hub_endpoint() or PUBLIC).rstrip("/")


def _hub_name() -> str:
    """Return the Hub's address without user name and password."""
    parts = urlsplit(_endpoint())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def ask(wanted: HubFile, commit: str) -> Any:
    """Request the metadata of a file: `commit_hash`, `etag` and `size`.

    Args:
        wanted: the file.
        commit: the commit that the revision is pinned to, or empty.
    Raises:
        FetchError: if there is no answer, or the server is not a Hub.
    """
    hub = library()
    url = hub.hf_hub_url(wanted.repo, wanted.file, revision=commit or wanted.revision, endpoint=_endpoint())

    def request() -> Any:
        return hub.get_hf_file_metadata(url, timeout=ANSWER, endpoint=_endpoint())

    about = _guarded(wanted, commit, PATIENCE, request, _TRANSIENT)
    if not about.commit_hash or not about.etag:
        raise FetchError(
            f"the server at {_hub_name()} is not a Hugging Face Hub: it gave no commit for {wanted}. It may be the "
            "login page of a network, or a proxy. Open a web page first, or check HF_ENDPOINT and the proxy settings."
        )
    return about


def transfer(wanted: HubFile, commit: str, size: int | None, force: bool) -> Path:
    """Download the file into the client's cache and return its path there.

    Args:
        wanted: the file.
        commit: the commit that the revision is pinned to, or empty.
        size: bytes, if the Hub gives them. The disk must have room for them, and they set the time limit.
        force: download even if the cache has the file.
    Raises:
        FetchError: if the disk is too small, or the download fails or is too slow.
    """
    hub = library()
    _require_space(wanted, size or 0)

    def download() -> Path:
        return Path(
            hub.hf_hub_download(
                wanted.repo,
                wanted.file,
                revision=commit or wanted.revision,
                cache_dir=settings.hub_cache_dir(),
                endpoint=_endpoint(),
                etag_timeout=ANSWER,
                force_download=force,
                library_name="flax-zoo",
            )
        )

    # The client itself resumes broken connections, so no error is transient here; only a busy server is asked again.
    path = _guarded(wanted, commit, PATIENCE + (size or 0) / SLOWEST, download, set())
    return settings.hub_cache_dir() / path.relative_to(settings.hub_cache_dir().resolve())


def _require_space(wanted: HubFile, size: int) -> None:
    folder = settings.hub_cache_dir().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise FetchError(
            f"{wanted} has {size / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free. Free some space, or set "
            "HF_HUB_CACHE to a directory on another disk."
        )


def _guarded(wanted: HubFile, commit: str, seconds: float, call: Callable[[], T], transient: set[str]) -> T:
    """Call with retries, a time limit, and errors that a user can act on.

    Args:
        wanted: the file, for the error text.
        commit: the commit that the revision is pinned to, or empty.
        seconds: time limit of all attempts together.
        call: the request.
        transient: class names of errors after which another attempt makes sense.
    """

    def patiently() -> T:
        for wait in WAITS:
            try:
                return call()
            except Exception as error:
                pause = _pause(error, wait, transient)
                if pause is None:
                    raise
                time.sleep(pause)
        return call()

    try:
        return _within(seconds, patiently)
    except _TooSlowError:
        raise FetchError(
            f"{wanted}: {_hub_name()} was too slow, given up after {seconds:.0f} s. Try again later, or download the "
            "file yourself and give its path."
        ) from None
    except FetchError:
        raise
    except Exception as error:
        raise _explain(wanted, commit, error) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Call with a time limit, in a daemon thread: a hanging socket cannot be interrupted, only abandoned."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="zoo-fetch")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _TooSlowError
    return results[0]


def _kinds(error: BaseException) -> set[str]:
    # By name, because the client has changed its HTTP library between versions while the names stayed the same.
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


def _pause(error: Exception, wait: float, transient: set[str]) -> float | None:
    """Return the seconds until the next attempt, or None if another attempt is pointless."""
    if _status(error) in _BUSY:
        asked = _retry_after(error)
        return max(wait, asked) if asked <= LONGEST_WAIT else None
    return wait if _kinds(error) & transient else None


def _retry_after(error: BaseException) -> float:
    text = getattr(error, "response").headers.get("Retry-After", "")  # noqa: B009
    return float(text) if text.isdecimal() else 0.0


def no_such_file(wanted: HubFile, commit: str) -> NoSuchFileError:
    """Return the error for a file that the commit does not have."""
    error = NoSuchFileError(
        f"{wanted.source} has no file {wanted.file!r} at revision {wanted.revision!r}. zoo reads safetensors only; "
        f"name another file as {wanted.source}/FILE, or another revision as {wanted.source}@REVISION."
    )
    error.commit = commit
    return error


def _explain(wanted: HubFile, commit: str, error: BaseException) -> FetchError:
    """Translate an error of the client into one that says what to do."""
    # The order matters: GatedRepoError is a subclass of RepositoryNotFoundError, and others nest in the same way.
    kinds, status = _kinds(error), _status(error)
    hub, page = _hub_name(), f"{_hub_name()}/{wanted.repo}"
    if "GatedRepoError" in kinds:
        return FetchError(
            f"{wanted.source} is gated: accept its terms at {page}, then `hf auth login` or set HF_TOKEN."
        )
    if "RepositoryNotFoundError" in kinds:
        return FetchError(
            f"there is no repository {wanted.repo!r} at {hub}, or it is private. Check the spelling; for a private "
            "one, `hf auth login` or set HF_TOKEN."
        )
    if "RevisionNotFoundError" in kinds:
        pinned = commit and not wanted.pinned
        why = f" (commit {commit} in {lock.path()})" if pinned else ""
        way = f"forget the pin with `{lock.COMMAND} {wanted.source}`" if pinned else f"see {page}/commits"
        return FetchError(f"{wanted.source} has no revision {wanted.revision!r}{why}: {way}.")
    if "RemoteEntryNotFoundError" in kinds:
        headers = getattr(error, "response").headers  # noqa: B009
        return no_such_file(wanted, headers.get("X-Repo-Commit") or commit)
    if "OfflineModeIsEnabled" in kinds:
        return FetchError(f"{wanted} must be requested, but HF_HUB_OFFLINE was set when Python started. Unset it.")
    if "LocalEntryNotFoundError" in kinds and error.__cause__ is not None:
        return _explain(wanted, commit, error.__cause__)
    if status in (401, 403):
        return FetchError(f"{hub} refuses {wanted} (HTTP {status}): check HF_TOKEN, or `hf auth login`.")
    if status == 429:
        later = f"in {_retry_after(error):.0f} s" if _retry_after(error) else "later"
        return FetchError(f"{hub} got too many requests and refused {wanted} (HTTP 429): try again {later}.")
    if status in _BUSY:
        return FetchError(f"{hub} answered HTTP {status} for {wanted}, {_attempts()}. Try again later.")
    if status:
        return FetchError(f"{hub} answered HTTP {status} for {wanted}: check the name and HF_ENDPOINT.")
    if "TimeoutException" in kinds:
        return FetchError(f"{hub} did not answer in time for {wanted}, {_attempts()}. {_elsewhere()}")
    if "ConnectError" in kinds or "ProxyError" in kinds:
        return FetchError(f"{hub} cannot be reached for {wanted} ({error}), {_attempts()}. {_elsewhere()}")
    if kinds & {"NetworkError", "RemoteProtocolError", "HTTPError"}:
        return FetchError(f"the connection to {hub} broke while {wanted} was read ({error}). {_elsewhere()}")
    return _explain_system(wanted, error)


def _explain_system(wanted: HubFile, error: BaseException) -> FetchError:
    number = getattr(error, "errno", None)
    folder = settings.hub_cache_dir()
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return FetchError(
            f"no space in {folder} for {wanted} ({error}). Free some, or set HF_HUB_CACHE to another disk."
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return FetchError(
            f"{_hub_name()} sent {wanted} with another size than it announced. The answer may come from a proxy or the "
            f"login page of a network. {_elsewhere()}"
        )
    if number is not None:
        return FetchError(
            f"{wanted} cannot be written to {folder}: {error}. Set HF_HUB_CACHE to a directory you can write to."
        )
    return FetchError(f"{wanted} could not be fetched: {type(error).__name__}: {str(error).splitlines()[:1]}.")


def _attempts() -> str:
    return f"tried {len(WAITS) + 1} times"


def _elsewhere() -> str:
    return "Check the network and HF_ENDPOINT, set ZOO_OFFLINE=1 to use what is cached, or give a local file."

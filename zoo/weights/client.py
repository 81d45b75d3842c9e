"""Requests to the Hugging Face hub through its own client, with an end to every wait and errors a user can act on.

The client alone waits 23 seconds for a dead server and for ever for a slow one, follows any `Retry-After`, and lets its
HTTP library's errors out.
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
"""Seconds between attempts while the hub is busy or out of reach; then it is an error."""
LONGEST_WAIT = 10.0
"""When the hub asks for a longer pause than these seconds, the user decides."""
ANSWER = 10.0
"""Seconds that the hub may take for one answer without content."""
PATIENCE = 60.0
"""Seconds for everything that is not content, all attempts together."""
SLOWEST = 20_000.0
"""Bytes a second below which a download is given up."""

_TRANSIENT = {"TimeoutException", "NetworkError", "RemoteProtocolError"}
_BUSY = {408, 429, 500, 502, 503, 504}
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _TooSlowError(Exception):
    """A call that did not end in time."""


class NoSuchFileError(FetchError):
    """The repository exists and has no file of that name. `commit`: the commit that says so, or empty."""

    commit: str = ""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a hub repository. `revision` is a branch, a tag or a commit."""

    repo: str
    revision: str
    file: str

    @property
    def source(self) -> str:
        """The repository, as `zoo.lock` names it."""
        return f"hf://{self.repo}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which always holds the same bytes."""
        return bool(_COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}/{self.file}"


def library() -> Any:
    """The hub's client, imported when it is first needed."""
    if "huggingface_hub" not in sys.modules:
        # The client reads this once, when it is imported; without it, building a request can cost another request.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


def _endpoint() -> str:
    return (settings.hub_endpoint() or PUBLIC).rstrip("/")


def _hub_name() -> str:
    """The hub's address without what may be secret in it."""
    parts = urlsplit(_endpoint())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def ask(wanted: HubFile, commit: str) -> Any:
    """What the hub says about the file: `commit_hash`, `etag` and `size`.

    Args:
        commit: that the revision is pinned to, or empty.
    Raises:
        FetchError: when there is no answer, or not from a hub.
    """
    hub = library()
    url = hub.hf_hub_url(wanted.repo, wanted.file, revision=commit or wanted.revision, endpoint=_endpoint())

    def request() -> Any:
        return hub.get_hf_file_metadata(url, timeout=ANSWER, endpoint=_endpoint())

    about = _guarded(wanted, commit, PATIENCE, request, _TRANSIENT)
    if not about.commit_hash or not about.etag:
        raise FetchError(
            f"what answers at {_hub_name()} is no hub: it named no commit for {wanted}. A network's login page "
            "or a proxy may be answering: open a web page first, or check HF_ENDPOINT and the proxy settings."
        )
    return about


def transfer(wanted: HubFile, commit: str, size: int | None, force: bool) -> Path:
    """Let the client download the file into its cache; unless forced, it only looks whether it is there.

    Args:
        size: in bytes, where the hub says it: there must be room for it, and it bounds the time.
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

    # The client itself resumes broken connections, so only a busy server is tried again.
    path = _guarded(wanted, commit, PATIENCE + (size or 0) / SLOWEST, download, set())
    return settings.hub_cache_dir() / path.relative_to(settings.hub_cache_dir().resolve())


def _require_space(wanted: HubFile, size: int) -> None:
    folder = settings.hub_cache_dir().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise FetchError(
            f"{wanted} has {size / 1e6:.0f} MB and {folder} has {free / 1e6:.0f} MB free. Free some space, or set "
            "HF_HUB_CACHE to a folder on another disk."
        )


def _guarded(wanted: HubFile, commit: str, seconds: float, call: Callable[[], T], transient: set[str]) -> T:
    """Call with retries for what may pass, an end in time, and errors that a user can act on."""

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
            "file by other means and give its path."
        ) from None
    except FetchError:
        raise
    except Exception as error:
        raise _explain(wanted, commit, error) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Call in a thread that is left behind when it takes too long: a hanging socket cannot be interrupted otherwise."""
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
    # By name, because the client changes its HTTP library between versions and keeps the names.
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


def _pause(error: Exception, wait: float, transient: set[str]) -> float | None:
    """Seconds until the next attempt, or None when there is no point in one."""
    if _status(error) in _BUSY:
        asked = _retry_after(error)
        return max(wait, asked) if asked <= LONGEST_WAIT else None
    return wait if _kinds(error) & transient else None


def _retry_after(error: BaseException) -> float:
    text = getattr(error, "response").headers.get("Retry-After", "")  # noqa: B009
    return float(text) if text.isdecimal() else 0.0


def no_such_file(wanted: HubFile, commit: str) -> NoSuchFileError:
    """The error for a file that the commit does not have."""
    error = NoSuchFileError(
        f"{wanted.source} has no file {wanted.file!r} at revision {wanted.revision!r}. zoo reads safetensors only; "
        f"name another file as {wanted.source}/FILE, or another revision as {wanted.source}@REVISION."
    )
    error.commit = commit
    return error


def _explain(wanted: HubFile, commit: str, error: BaseException) -> FetchError:
    """The client's error as a sentence. The order matters: gated is a kind of not found."""
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
        return FetchError(f"{wanted} needs a request, and HF_HUB_OFFLINE was set when Python started. Unset it.")
    if "LocalEntryNotFoundError" in kinds and error.__cause__ is not None:
        return _explain(wanted, commit, error.__cause__)
    if status in (401, 403):
        return FetchError(f"{hub} refuses {wanted} (HTTP {status}): check HF_TOKEN, or `hf auth login`.")
    if status == 429:
        later = f"in {_retry_after(error):.0f} s" if _retry_after(error) else "later"
        return FetchError(f"{hub} says there were too many requests (HTTP 429) for {wanted}: try again {later}.")
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
            f"no room in {folder} for {wanted} ({error}). Free some, or set HF_HUB_CACHE to another disk."
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return FetchError(
            f"{_hub_name()} sent {wanted} with another size than it announced. A proxy or a network's login page may "
            f"be answering. {_elsewhere()}"
        )
    if number is not None:
        return FetchError(f"{wanted} cannot be kept in {folder}: {error}. Set HF_HUB_CACHE to a folder you can write.")
    return FetchError(f"{wanted} could not be fetched: {type(error).__name__}: {str(error).splitlines()[:1]}.")


def _attempts() -> str:
    return f"tried {len(WAITS) + 1} times"


def _elsewhere() -> str:
    return "Check the network and HF_ENDPOINT, set ZOO_OFFLINE=1 to use what is cached, or give a local file."

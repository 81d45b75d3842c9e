"""Spelling of sources of weights: what is accepted, checked without looking at the disk or the network."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

from zoo.errors import FetchError
from zoo.text import printable

ACCEPTED = "Accepted: hf://org/repo[@revision][/file], a local file or folder, or a scheme that a plugin knows."

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# ASCII letters, digits, ".", "_" and "-", without a leading dot: so no "..", no hidden files, no look-alike characters.
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
HUB = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?(?:/(?P<file>{_PART}(?:/{_PART})*))?")
"""An address on the Hub without its scheme."""
PATH = re.compile(rf"{_PART}(?:/{_PART})*")
"""A file inside a source, or a revision."""


def shown(source: str) -> str:
    """Return a source for printing, without user name and password."""
    return re.sub(r"//[^/]*@", "//***@", source)


def scheme(source: str) -> str:
    """Return the scheme of a source, or an empty string for a path.

    Raises:
        FetchError: zoo does not accept the source.
    """
    if not source.strip():
        raise FetchError(f"the source is empty. {ACCEPTED}")
    match = _SCHEME.fullmatch(source)
    if not match:
        if source.lower().startswith(("hf:", "file:", "http:", "https:")):
            raise FetchError(f"{shown(source)!r} has no '//' after its scheme. {ACCEPTED}")
        if "://" in unicodedata.normalize("NFKC", source):
            raise FetchError(f"{shown(source)!a} is no path and has no scheme that zoo knows. {ACCEPTED}")
        return ""
    name, rest = match[1].lower(), match[2]
    if name == "file":
        raise FetchError(f"{shown(source)!r}: give a local file as a plain path, without file://.")
    if name in ("http", "https"):
        raise FetchError(
            f"{shown(source)!r}: zoo does not load from web addresses, because they cannot be pinned. For the Hub, "
            "write hf://org/repo[@revision][/file]. Otherwise download the file and give its path."
        )
    if name != "hf":
        _require_plain(source, rest)
    return match[1]


def parse_hub(source: str, revision: str = "") -> tuple[str, str, str]:
    """Parse `hf://org/repo[@revision][/file]`. Returns repository, revision and file; the last two may be empty.

    Args:
        source: the text.
        revision: revision to use if the source names none.

    Raises:
        FetchError: the source is spelled in another way, or names another revision than the argument.
    """
    match = HUB.fullmatch(source.removeprefix("hf://"))
    if not match or not source.startswith("hf://"):
        raise FetchError(
            f"{shown(source)!r} does not have the form hf://org/repo[@revision][/file/in/repo] with letters, digits, "
            "'.', '_' and '-'."
        )
    if revision and not PATH.fullmatch(revision):
        raise FetchError(f"{revision!r} is not a revision. Give a branch, a tag or a commit.")
    if match["revision"] and revision and match["revision"] != revision:
        raise FetchError(f"{source} names another revision than revision={revision!r}. Give only one of them.")
    if re.search(r"--|\.\.|[.-](/|$)|\.git$", match["repo"]):
        raise FetchError(
            f"{match['repo']!r} cannot be a repository: names have no '--' or '..', and no '.' or '-' at either end."
        )
    return match["repo"], match["revision"] or revision, match["file"] or ""


def check_listed(source: str, file: str, revision: str, *, below: bool) -> None:
    """Check a source that stands in a file, where nobody typed it.

    Args:
        source: the source, or an empty string.
        file: file at the source, or an empty string.
        revision: revision, or an empty string.
        below: accept local paths only below the folder of the file.

    Raises:
        FetchError: the source cannot be right, or leads somewhere else.
    """
    for value, what in ((file, "file name inside a source"), (revision, "revision")):
        if value and not PATH.fullmatch(value):
            raise FetchError(f"{value!r} is not a {what}. Use letters, digits, '.', '_', '-' and '/'.")
    if not source:
        return
    name = scheme(source)
    if name.lower() == "hf":
        parse_hub(source, revision)
    if name:
        return
    if printable(source) != source:
        raise FetchError(f"{source!r} has control characters or invisible ones. Write the path without them.")
    if ".." in re.split(r"[/\\]", source):
        raise FetchError(f"{source!r} must not contain '..'.")
    outside = PurePosixPath(source).is_absolute() or PureWindowsPath(source).anchor or source.startswith("~")
    if below and outside:
        raise FetchError(
            f"{source!r} is outside the folder of the file. Name a file below it, put the row into the registry.toml "
            "of your configuration folder (see `zoo doctor`), or give the path with --weights."
        )


def _require_plain(source: str, rest: str) -> None:
    """Refuse sources that no plugin should get: with passwords, '..' or look-alike characters."""
    if "@" in rest.split("/", 1)[0]:
        raise FetchError(
            f"{shown(source)!r} contains a user name or password. Give it in the settings of the plugin instead."
        )
    if not rest.isascii() or not rest.isprintable() or " " in rest or "\\" in rest:
        raise FetchError(f"{shown(source)!r} must be printable ASCII without spaces and backslashes.")
    if ".." in re.split(r"[/?#]|%2f", rest.lower().replace("%2e", ".")):
        raise FetchError(f"{shown(source)!r} must not contain '..'.")

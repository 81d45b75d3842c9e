"""Errors that a user can act on. Each says what was given, what is accepted and what to do.

The command line prints the message and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from zoo.text import printable


class ZooError(Exception):
    """Base of every error that zoo raises on purpose.

    Each argument is a line of its text, made `printable`: a name in it cannot forge another line.
    """

    def __str__(self) -> str:
        if len(self.args) > 1 and all(isinstance(line, str) for line in self.args):
            return "\n".join(map(printable, self.args))
        return printable(super().__str__())


class UnknownNameError(ZooError, LookupError):
    """A name that no plugin, catalogue or option table knows."""


class ConfigError(ZooError, ValueError):
    """An option, a size or a combination of options that cannot work."""


class DataError(ZooError, ValueError):
    """A dataset that cannot be read, or that does not fit the task."""


class UnreadableError(DataError):
    """A file that cannot be read, or an image that is damaged.

    Attributes:
        path: the file, or a name for data that is no file.
        problem: what is wrong, without the name of the file.
    """

    def __init__(self, path: str, problem: str = "") -> None:
        super().__init__(f"{path} {problem}".rstrip())
        self.path, self.problem = path, problem

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.problem)  # for errors that cross processes


class LateError(UnreadableError):
    """A file that could not be read in time."""


class WeightsError(ZooError, ValueError):
    """Weights that are unsafe, damaged, or do not fit the model."""


class FetchError(ZooError, OSError):
    """A file that could not be fetched from its source."""


class PluginError(ZooError, RuntimeError):
    """A plugin that is broken, incompatible, or in conflict with another."""


class RunError(ZooError, RuntimeError):
    """A run directory that cannot be written, read or resumed."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, for messages: `1 image`, `2 images`. Give an irregular `plural` (`boxes`)."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def nearest(given: str, accepted: Iterable[str], count: int = 5) -> list[str]:
    """Return the `count` accepted names closest to `given`, best first; names that contain it count as close."""
    names = sorted(set(accepted))
    close = difflib.get_close_matches(given, names, n=count, cutoff=0.6)
    inside = [name for name in names if given and given.lower() in name.lower() and name not in close]
    return (close + inside)[:count]


SHORT_LIST = 20
"""Number of names up to which an error lists all of them."""


def unknown_name(
    kind: str, given: str, accepted: Iterable[str], hint: str = "", *, owner: str = ""
) -> UnknownNameError:
    """Return the error for a name that is not among `accepted`. It lists the nearest names, or all of a short list.

    Args:
        kind: what the name stands for, e.g. `backbone`.
        given: the unknown name.
        accepted: the known names.
        hint: a sentence at the end.
        owner: what the name belongs to, with its preposition, e.g. `of train`.
    """
    names = sorted(set(accepted))
    close = nearest(given, names)
    if close:
        advice = "Nearest: " + ", ".join(close) + "."
    elif len(names) <= SHORT_LIST:
        advice = "Accepted: " + (", ".join(names) or "none") + "."
    else:
        advice = f"None of the {len(names)} known names is close."
    return UnknownNameError(f"unknown {kind} {given!r}{owner and ' ' + owner}. {advice}" + (f" {hint}" if hint else ""))

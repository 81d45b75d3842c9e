"""Compare and order class names, for every source: folders, tables, annotations or a model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_BETWEEN = re.compile(r"(?<=\w)[\s_-]+(?=\w)")


def nfc(name: str) -> str:
    """Return a name in the Unicode form NFC: macOS stores `é` as two characters, most other systems as one."""
    return unicodedata.normalize("NFC", name)


def number(name: str) -> Decimal | None:
    """Return the value of a name that is a number (`7`, `007`, `-1`, `7.0`), or None."""
    return Decimal(name) if _NUMBER.fullmatch(name) else None


def index_of(name: str) -> int | None:
    """Return the value of a name that is a whole number of at least 0 (`7`, `007`, `7.0`), or None."""
    value = number(name)
    return int(value) if value is not None and value >= 0 and value == value.to_integral_value() else None


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names sorted: numbers first, by their value (9 before 10), then the rest as text."""

    def key(name: str) -> tuple[bool, Decimal, str]:
        value = number(name)
        return value is None, value or Decimal(), name

    return sorted(names, key=key)


def loose(name: str) -> str:
    """Return a name in the form in which spellings are compared.

    Case is ignored, and spaces, `_` and `-` between words become one space. Numbers become their value. Signs at the
    start or the end of a name stay, since `A-` and `A` may be different grades.
    """
    value = number(name)
    if value is not None:
        return str(value.normalize())
    return _BETWEEN.sub(" ", nfc(name).strip()).casefold()


def twins(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that differ only by case or spaces."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault("".join(nfc(name).split()).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]

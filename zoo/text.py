"""Text for people and for files: names from anywhere, made safe to show and possible to write."""

from __future__ import annotations

import json
import re
import reprlib
from typing import Any

_BYTES = re.compile("[\udc80-\udcff]+")
"""What stands for the bytes that Python could not decode in a file name."""
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
"""Controls, signs that reverse the direction of text, invisible signs, and halves of characters. The joiners of emoji
and of Persian words are not among them."""
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxdict = _BRIEF.maxtuple = 12
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80
_BRIEF.maxlevel = 3


def decoded(name: str) -> str:
    r"""Return the name of a file as text that can be written in UTF-8.

    Python keeps bytes of a name that it cannot decode as lone surrogates. They are read as UTF-8 here, whatever the
    locale, and written as `\xe9` if they are not UTF-8 either.
    """
    return _BYTES.sub(
        lambda match: match[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), name
    )


def printable(text: object) -> str:
    r"""Return a text as it is shown: on one line, and without characters that a terminal obeys.

    Names of files, classes and tensors come from anywhere. A control character in one could clear the screen, forge a
    line of output or reverse the letters after it. Such characters are shown as escapes, such as `\x1b`.
    """
    shown = str(text)
    return shown if shown.isprintable() else _UNSAFE.sub(_escaped, decoded(shown))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def shown(value: Any) -> str:
    """Return a value from a file for messages. Nested and long values are cut."""
    return _BRIEF.repr(value)


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return strict JSON that every program reads and a terminal can show.

    Characters that `printable` escapes are escaped, with the same value for the reader. Bytes of file names that are no
    UTF-8 have no place in JSON; they are written as by `decoded`.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    if text.isascii() and "\x7f" not in text:
        return text
    text = _BYTES.sub(lambda match: decoded(match[0]).replace("\\", "\\\\"), text)
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)

"""Read an XML file that may come from anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from zoo.errors import DataError
from zoo.reading import read_file


class _Tree(ElementTree.TreeBuilder):
    """Tree builder that writes tags in lower case, since tools differ.

    It refuses a document type, whose entities could grow without bound or read other files.
    """

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:  # type: ignore[override]
        return super().start(tag.lower(), attrs)

    def end(self, tag: str) -> ElementTree.Element:
        return super().end(tag.lower())

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ElementTree.ParseError("it declares a document type, which annotations do not need")


def load_xml(file: Path) -> ElementTree.Element:
    """Return the root element of an XML file, with all tags in lower case. Raise `DataError` if it cannot be read."""
    try:
        root = ElementTree.fromstring(read_file(file), ElementTree.XMLParser(target=_Tree()))
    except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
        raise DataError(f"{file} cannot be read as XML: {error}.") from error
    if root is None:
        raise DataError(f"{file} cannot be read as XML: it has no element.")
    return root


def starts_with(file: Path, tag: str) -> bool:
    """Whether an XML file starts with an element of that name. Its first 512 bytes tell. Raises `UnreadableError`."""
    start = read_file(file, 512).replace(b"\0", b"")
    return re.search(rf"<{tag}[\s>]".encode(), start, re.IGNORECASE) is not None

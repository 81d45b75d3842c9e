"""Read a YAML file that may come from anywhere, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.errors import DataError
from zoo.reading import read_text
from zoo.text import shown

_MOST_BYTES = 16_000_000
_MOST_ALIASES = 20
"""Aliases (`*name`) repeat a node. Nested ones multiply: nine levels of nine make a billion nodes of a few lines. With
20 of them at most, a node is repeated about 1,500 times at most."""

_MOST_LEVELS = 50


def load_yaml(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        DataError: it is not YAML in UTF-8, it is larger than 16 MB, has more than 20 aliases or 50 levels, or gives a
            key twice; names the file and, where there is one, the line.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        aliases = depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _MOST_LEVELS:
                line = self.peek_event().start_mark.line + 1
                raise DataError(f"{file}, line {line}: more than {_MOST_LEVELS} levels of lists and mappings.")
            if self.check_event(yaml.AliasEvent):
                self.aliases += 1
                if self.aliases > _MOST_ALIASES:
                    event = self.peek_event()
                    raise DataError(
                        f"{file}, line {event.start_mark.line + 1}: more than {_MOST_ALIASES} aliases "
                        f"(*{event.anchor}), which could repeat their nodes without bound. Write the values out."
                    )
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} has {file.stat().st_size:,} bytes; a YAML file may have at most {_MOST_BYTES:,}.")
        loader = Loader(read_text(file))
        node = loader.get_single_node()
        if twice := _repeated(node):
            raise DataError(f"{file}, line {twice.start_mark.line + 1}: the field {shown(twice.value)} occurs twice.")
        return None if node is None else loader.construct_document(node)
    except DataError:
        raise
    except (yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as YAML: {error}.") from error


def _repeated(node: Any) -> Any:
    """Return the node of a key that occurs twice in a mapping at the top or right below; None if there is none.

    YAML forbids that, but readers keep the last value without a word.
    """
    import yaml

    below = [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else []
    for mapping in (node, *below):
        seen = set()
        for key, _ in mapping.value if isinstance(mapping, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (key.tag, key.value) in seen:
                    return key
                seen.add((key.tag, key.value))
    return None

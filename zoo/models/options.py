"""Options by their owner: each key of a configuration goes to the task, the backbone or the preprocessing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from zoo.errors import ConfigError, UnknownNameError, unknown_name

OWNERS = ("task", "backbone", "preprocess")
"""The owners of options. A key may name its owner, `owner.key`, and must if several owners have it."""


def refuse_renamed(keys: Iterable[str], known: Container[str], renamed: Mapping[str, str]) -> None:
    """Raise `UnknownNameError` with the new name for a key that is a former name of an option.

    Args:
        known: names of options now.
        renamed: former name -> name now.
    """
    for key in keys:
        if key in renamed and key not in known:
            raise UnknownNameError(f"the option `{key}` is now `{renamed[key]}`.")


def by_owner(
    what: str, accepted: Mapping[str, Sequence[str]], *configs: Mapping[str, Any], internal: Container[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the options by owner. Later configurations override earlier ones.

    Args:
        what: The task and backbone, for messages.
        accepted: Owner -> its keys.
        configs: Key or `owner.key` -> value.
        internal: Keys that are accepted, so that saved models load, but that errors do not suggest.

    Raises:
        UnknownNameError: No owner has a key; the error names the nearest ones.
        ConfigError: Several owners have a bare key, or a configuration gives an option twice.
    """
    found: dict[str, dict[str, Any]] = {owner: {} for owner in accepted}
    for config in configs:
        given: dict[tuple[str, str], str] = {}
        for key, value in config.items():
            owner, name = _owner(what, accepted, key, internal)
            if before := given.get((owner, name)):
                raise ConfigError(f"{before} and {key} are the same option of the {owner}; give one of them.")
            given[owner, name] = key
            found[owner][name] = value
    return found


def _owner(what: str, accepted: Mapping[str, Sequence[str]], key: str, internal: Container[str]) -> tuple[str, str]:
    prefix, dot, rest = key.partition(".")
    if dot and prefix in accepted:
        if rest not in accepted[prefix]:
            suggested = [name for name in accepted[prefix] if name not in internal]
            raise unknown_name("option", rest, suggested, owner=f"of the {prefix} for {what}")
        return prefix, rest
    owners = [owner for owner, keys in accepted.items() if key in keys]
    if not owners:
        suggested = [name for keys in accepted.values() for name in keys if name not in internal]
        raise unknown_name("option", key, suggested, owner=f"for {what}")
    if len(owners) > 1:
        forms = " or ".join(f"{owner}.{key}" for owner in owners)
        raise ConfigError(
            f"{key} is an option of the {' and of the '.join(owners)} for {what}: name the owner: {forms}."
        )
    return owners[0], key

"""Rules that decide which parameters train, and how fast.

A rule is `(pattern, multiplier)`. The pattern is matched against the whole dotted path of a parameter, such as
`backbone.layer1.0.conv1.kernel`; `*` stands for any characters. The multiplier scales the learning rate; None freezes.

The first rule that matches a parameter decides, so exceptions come before general rules and `("*", ...)` comes last.
Every parameter must be matched. A rule that decides nothing is an error: otherwise a misspelled pattern would silently
freeze, or train, the wrong layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import optax
from flax import nnx

from zoo.errors import ConfigError, nearest
from zoo.numbers import Accepted
from zoo.weights.mapping import Path, dotted

Rule = tuple[str, float | None]

HEAD: Rule = ("head.*", 1.0)
REST_FROZEN: Rule = ("*", None)
REST_TRAINS: Rule = ("*", 1.0)


@dataclass(frozen=True)
class Assignment:
    """The decisions of rules for a model.

    Attributes:
        multipliers: parameter path -> multiplier of the learning rate; None for frozen.
        frozen_modules: dotted paths of the modules that stay in evaluation mode. No path lies inside another.
    """

    multipliers: Mapping[Path, float | None]
    frozen_modules: tuple[str, ...]

    def trains(self, path: Path, _: Any = None) -> bool:
        """Whether the parameter at `path` trains. The method is an nnx filter of the trained parameters."""
        return self.multipliers.get(path) is not None

    @property
    def backbone_frozen(self) -> bool:
        """Whether only the head trains, so that features need to be computed only once."""
        return all(value is None for path, value in self.multipliers.items() if path[0] != "head")

    def labels(self, params: nnx.State) -> nnx.State:
        """Return the group of each parameter, for `optax.partition`. Parameters of a group share a multiplier."""
        flat = nnx.to_flat_state(params)
        return nnx.from_flat_state([(path, _in_place_of(v, group(self.multipliers[path]))) for path, v in flat])

    def transform(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Return `optimizer` restricted to the trained parameters, with each update scaled by its multiplier.

        Frozen parameters get zero updates and no optimizer state, and do not count in the norm of a clip inside
        `optimizer`. Their gradients are not read, so that a compiled step does not compute them.
        """
        # Two partitions, one after the other. The first has a single group for everything that trains, so that a clip
        # sees the norm over all of it; a group for each multiplier would be clipped separately. Scaling comes after the
        # optimizer, because Adam-like updates do not depend on the scale of the gradients.
        groups = {group(m): m for m in self.multipliers.values()}
        scales = {name: optax.set_to_zero() if m is None else optax.scale(m) for name, m in groups.items()}

        def trained(params: nnx.State) -> Any:
            flat = nnx.to_flat_state(params)
            pick = ("freeze", "train")
            return nnx.from_flat_state([(p, _in_place_of(v, pick[self.multipliers[p] is not None])) for p, v in flat])

        return optax.chain(
            optax.partition({"train": optimizer, "freeze": optax.set_to_zero()}, trained),
            optax.partition(scales, self.labels),
        )


def _in_place_of(leaf: Any, label: str) -> Any:
    """Return `label` with the structure of `leaf`: `nnx.Optimizer` passes bare arrays, the loop passes variables."""
    return leaf.replace(label) if isinstance(leaf, nnx.Variable) else label


def group(multiplier: float | None) -> str:
    """Return the name of the group of parameters that have this multiplier."""
    return "frozen" if multiplier is None else f"x{multiplier:g}"


def assign(model: nnx.Module, rules: Sequence[Rule]) -> Assignment:
    """Apply rules to a model.

    Args:
        model: the model.
        rules: the rules, in order; the first that matches a parameter decides.

    Raises:
        ConfigError: a rule decides nothing, no rule matches a parameter, or everything is frozen.
    """
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    multipliers: dict[Path, float | None] = {}
    used = [0] * len(rules)
    for path in paths:
        name = dotted(path)
        for index, (pattern, multiplier) in enumerate(rules):
            if fnmatchcase(name, pattern):
                multipliers[path] = multiplier
                used[index] += 1
                break
    names = [dotted(path) for path in paths]
    check_multipliers(rules)
    for (pattern, _), count in zip(rules, used, strict=True):
        if not count:
            raise ConfigError(_matches_nothing(pattern, names))
    if missing := [dotted(path) for path in paths if path not in multipliers]:
        raise ConfigError(
            f"no rule matches {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "") + ": end "
            'the rules with ("*", None) to freeze the rest, or ("*", 1.0) to train it.'
        )
    if all(value is None for value in multipliers.values()):
        raise ConfigError("the rules freeze every parameter; at least one must train.")
    return Assignment(multipliers, _frozen_modules(model, multipliers))


def check_multipliers(rules: Sequence[Rule]) -> None:
    """Raise `ConfigError` for a multiplier that is neither a positive number nor None."""
    for pattern, multiplier in rules:
        if multiplier is not None and multiplier not in Accepted(above=0):
            raise ConfigError(f"rule {pattern!r} has multiplier {multiplier}; it must be positive, or None to freeze.")


def _matches_nothing(pattern: str, names: Sequence[str]) -> str:
    covered = [name for name in names if fnmatchcase(name, pattern)]
    if covered:
        return f"rule {pattern!r} has no effect: earlier rules match all {len(covered)} of its parameters."
    stems = sorted({".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)})
    close = nearest(pattern.rstrip(".*"), stems, 3) or stems[:6]
    return f"rule {pattern!r} matches no parameter. Paths begin with {', '.join(close)}; `*` stands for any characters."


def _frozen_modules(model: nnx.Module, multipliers: Mapping[Path, float | None]) -> tuple[str, ...]:
    """Return the outermost modules in which nothing trains, and normalisation layers with any frozen parameter.

    They stay in evaluation mode: neither dropout nor batch statistics may change features that are meant to be fixed.
    """
    trained = {path[:n] for path, value in multipliers.items() if value is not None for n in range(len(path))}
    some = {path[:n] for path in multipliers for n in range(len(path))}
    held: list[Path] = []
    for path, module in sorted(nnx.iter_modules(model), key=lambda item: len(item[0])):
        if any(path[: len(above)] == above for above in held):
            continue
        own = [value for p, value in multipliers.items() if p[:-1] == path]
        statistics = hasattr(module, "use_running_average") and any(value is None for value in own)
        if (path in some and path not in trained) or statistics:
            held.append(path)
    return tuple(dotted(path) for path in held)


def table(model: nnx.Module, assignment: Assignment, depth: int = 2) -> list[tuple[str, int, str]]:
    """Return a table of what trains: (module path, number of parameters, `frozen` or the multipliers), by module."""
    rows: dict[str, tuple[int, set[str]]] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        key = dotted(path[: min(depth, len(path) - 1)])
        count, kinds = rows.setdefault(key, (0, set()))
        kinds.add(group(assignment.multipliers[path]))
        rows[key] = (count + int(variable.get_value().size), kinds)
    return [(key, count, ", ".join(sorted(kinds))) for key, (count, kinds) in rows.items()]

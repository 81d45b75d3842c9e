"""Recognise tensors of a checkpoint that belong to its training and not to the net.

Names tell what a tensor is: the module of a loss (`criterion.pos_weight`), of a metric (`train_acc.confmat`) or of an
optimizer, a counter, or a second copy of all parameters, such as their EMA (`model_ema.conv1.weight`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np

from zoo.errors import WeightsError

_METRICS = (
    r"(?:\w*_)?(?:acc|accuracy|f1|f1_?score|auc|auroc|auprc|precision|recall|specificity|confmat|confusion_?matrix|"
    r"metrics?|m?iou|jaccard|dice|kappa|ece|mae|mse|m?ap|average_precision|top_?[15k])(?:_?\d+)?(?:_metrics?)?"
)
_MODULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(?:\w*_)?(?:criteri(?:on|a)|loss(?:es)?)(?:_?\w+)?|\w*loss", re.IGNORECASE),
        "of the training's loss",
    ),
    (re.compile(r"(?:lr_)?schedulers?|(?:grad_|amp_)?scaler", re.IGNORECASE), "of the optimizer"),
    (re.compile(_METRICS, re.IGNORECASE), "of a metric"),
    (re.compile(r"(?:model_|net_)?ema(?:_\w+)?|shadow(?:_params)?", re.IGNORECASE), "of a moving average"),
)
"""(pattern of a module's name, what its tensors are)."""
_OPTIMIZER = re.compile(
    r"(?:^|\.)(?:opt(?:im(?:izer)?)?s?(?:_states?)?|(?:max_)?exp_avg(?:_sq)?|momentum_buffer|square_avg)\.",
    re.IGNORECASE,
)
"""Modules of an optimizer, and its moments: arrays with the names and shapes of the parameters."""
_PROFILED = frozenset({"total_ops", "total_params"})
"""Buffers that a profiler (thop) leaves in every module."""
_COUNTERS = re.compile(
    r"(?:ema_?\w*\.)?(?:epochs?|(?:global_)?steps?|iter(?:ation)?s?|n_averaged|num_updates|decay|initted|best_\w+)",
    re.IGNORECASE,
)
_PARAMETERS = frozenset({"weight", "bias", "running_mean", "running_var"})
"""Leaves that a metric does not have. A module that is called like one and has them is a part of the net."""


def of_optimizer(name: str) -> bool:
    """Whether a tensor is the state of an optimizer, whose names may be those of the parameters it belongs to."""
    return _OPTIMIZER.search(name) is not None


def why_extra(
    name: str, tensor: np.ndarray, prefixes: Collection[str], used: Collection[str], copies: Mapping[str, str]
) -> str:
    """Return why the net does not need a tensor, or an empty string if it does not look like one of training.

    Args:
        name: of the tensor in the file.
        tensor: its values.
        prefixes: wrappers of the net's names, from the longest to an empty one.
        used: names from which the net is read.
        copies: result of `copies_of`.
    """
    if of_optimizer(name):
        return "state of the optimizer"
    if name.rpartition(".")[2] in _PROFILED:
        return "a count by a profiler"
    for start in copies:
        if name.startswith(start):
            return copies[start]
    for start in prefixes:
        inner = name.removeprefix(start)
        if not name.startswith(start):
            continue
        if tensor.size == 1 and _COUNTERS.fullmatch(inner):
            return "a counter of the training"
        module, dot, rest = inner.partition(".")
        if any(other.startswith(start + module + ".") for other in used):
            continue
        for pattern, what in _MODULES:
            if dot and pattern.fullmatch(module) and not ("metric" in what and rest.split(".")[-1] in _PARAMETERS):
                return f"state {what}"
    return ""


def copies_of(
    names: Iterable[str], shapes: Mapping[str, tuple[int, ...]], prefix: str, used: Collection[str]
) -> dict[str, str]:
    """Return prefix -> why its tensors are ignored, for each further complete copy of the net in a file.

    Args:
        names: tensors that the net does not read.
        shapes: shape of each tensor of the file.
        prefix: wrapper of the names that the net reads.
        used: the names that the net reads.
    """
    inner = {name.removeprefix(prefix) for name in used if name in shapes and name.startswith(prefix)}
    found: Counter[str] = Counter()
    for name in names:
        for place, letter in enumerate(name):
            tail = name[place + 1 :]
            if letter == "." and tail in inner and shapes[name] == shapes[prefix + tail]:
                found[name[: place + 1]] += 1
    advice = f"to load it instead, ignore {prefix}*" if prefix else "the one without this prefix is loaded"
    return {
        start: f"a second copy below {start[:-1]}; {advice}" for start, count in found.items() if count == len(inner)
    }


def without(names: Iterable[str], patterns: Collection[str]) -> dict[str, str]:
    """Return name -> reason for the tensors that the user leaves out.

    Args:
        names: of all tensors in the file.
        patterns: globs, e.g. `criterion.*`.

    Raises:
        WeightsError: a pattern matches no tensor.
    """
    names = list(names)
    waived: dict[str, str] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            shown = ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")
            raise WeightsError(
                f"ignore_tensors (--ignore-tensors) {pattern!r} matches no tensor of the file, which holds {shown}. "
                "A pattern is a whole name, in which * stands for anything."
            )
        waived |= dict.fromkeys(matches, f"left out by {pattern!r}")
    return waived

"""Members of the former task contract, which nothing calls any more."""

from __future__ import annotations

from collections.abc import Collection
from inspect import get_annotations

from zoo.errors import PluginError

_METHODS = {
    "loss": "`loss_terms(forward, batch)`",
    "losses": "`loss_terms(forward, batch)`",
    "terms": "`loss_terms(forward, batch)`, with factors in `loss_weights`,",
    "decoded": "`decode(forward, batch)`",
    "predict": "`inference`",
    "raster": "`rasters`, name -> function of a prediction,",
    "figures": "`plots`",
}
_VALUES = {
    "recipe": "`training = Training(recipe=...)`",
    "fixed_backbone": '`training = Training(backbone="fixed")`',
    "mirrors": "`training = Training(cached_mirror=...)`",
    "views": "`training = Training(cached_views=...)`",
    "mixes": "`training = Training(mixup=...)`",
    "looks_twice": "`training = Training(tta=...)`",
    "moves": "`training = Training(moves=...)`",
    "invariant": "`training = Training(invariant=...)`",
}
FORMER = _METHODS | _VALUES
"""Former member -> what a task defines now. The first ones were methods, the others class attributes or properties."""


def refuse_former(task: type, contract: Collection[type]) -> None:
    """Raise `PluginError` if a task defines a member of the former contract, which would have no effect.

    An option may have such a name, as `loss` of the classifier does.

    Args:
        task: A subclass of `Adapter`.
        contract: The classes of the contract itself.
    """
    for base in task.__mro__:
        if base in contract:
            continue
        options = {name for name, kind in get_annotations(base).items() if "ClassVar" not in str(kind)}
        for name in sorted(FORMER.keys() & vars(base).keys() - options):
            if name in _METHODS and not hasattr(vars(base)[name], "__get__"):
                continue  # a plain value, such as a default of an option; functions and properties are descriptors
            raise PluginError(
                f"task {task.__name__}: `{name}` is no longer part of the task contract and would have no effect. "
                f"Define {FORMER[name]} instead, see zoo.models.task; or rename it, if it is a helper."
            )

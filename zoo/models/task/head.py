"""The head: the modules of a task on a backbone's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import jax
    from jax import Array

    from zoo.registry.spec import BackboneSpec


class Head(Protocol):
    """What the core calls on a head, which is an `nnx.Module`. `head(head.reduce(features))` gives the outputs."""

    def reduce(self, features: Mapping[str, Array], /) -> dict[str, Array]:
        """Return what the head computes from, given the features by stage.

        It must be deterministic and without parameters: its result is what the feature cache stores.
        """

    def reads(self) -> dict[str, str]:
        """Return the affine maps that read a reduced feature directly: path in the head -> stage.

        They are trained as if that feature were standardised (`zoo.training.precondition`). It may be empty.
        """

    def __call__(self, reduced: Mapping[str, Array], /) -> Any:
        """Return the outputs: an array, or arrays in dicts, lists and tuples."""


@dataclass(frozen=True)
class HeadInputs:
    """What a head is built for.

    Attributes:
        spec: The backbone, with its strides as it is built.
        shapes: Shape of the output of each stage that the task reads, for one image.
        size: (height, width) of the images.
    """

    spec: BackboneSpec
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    size: tuple[int, int]

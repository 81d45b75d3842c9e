"""The card of a model: where it comes from and how it must be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.registry.spec import Preprocess

DTYPES = ("float32", "bfloat16")
"""What the arithmetic of a model may be in, by the names that jax.numpy has for them."""


@dataclass(frozen=True)
class Provider:
    """The installed distribution that a plugin came with: its name on the package index, and its version."""

    distribution: str
    version: str


@dataclass(frozen=True)
class Card:
    """Where a model comes from and how it must be used. It is saved with the weights.

    Attributes:
        backbone: qualified or plain name of the architecture. adapter: name of the task.
        weights: name, path or hub address of what the parameters started from; empty for random ones.
        preprocess: how pixels are prepared. in_channels: of the images. dtype: of the arithmetic.
        options: build options of the backbone. label_set: name of the published label set, where the labels are one.
        license: of the weights. sha256: of the file they came from. seed: of everything initialised at random.
        notes: what was done to fit the weights to the model, for people. new_head: the head is untrained.
        plugins: whose code the `backbone` and the `adapter` are.
    """

    backbone: str
    adapter: str
    weights: str = ""
    preprocess: Preprocess = Preprocess()
    in_channels: int = 3
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    label_set: str = ""
    license: str = "unknown"
    sha256: str = ""
    revision: str = ""
    seed: int = 0
    notes: tuple[str, ...] = ()
    new_head: bool = False
    plugins: Mapping[str, Provider] = field(default_factory=dict, hash=False)

    def qualified(self, part: Literal["backbone", "adapter"]) -> str:
        """The name of a part in the registry: `distribution/name` where its distribution is known."""
        name = str(getattr(self, part))
        return f"{self.plugins[part].distribution}/{name}" if part in self.plugins else name

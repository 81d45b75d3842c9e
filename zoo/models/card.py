"""The card of a model: where it comes from and how it must be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.registry.spec import Preprocess

DTYPES = ("float32", "bfloat16")
"""Accepted dtypes of a model's arithmetic, by their names in jax.numpy."""


@dataclass(frozen=True)
class Provider:
    """The installed distribution that a plugin came with: its name on the package index, and its version."""

    distribution: str
    version: str


@dataclass(frozen=True)
class Card:
    """Where a model comes from and how it must be used. It is saved with the weights.

    Attributes:
        backbone: Name of the architecture, plain or with its distribution.
        adapter: Name of the task.
        weights: Name, path or hub address of the weights that the parameters started from; empty if random.
        preprocess: How images are prepared.
        in_channels: Channels of the images.
        dtype: Dtype of the arithmetic.
        options: Build options of the backbone.
        label_set: Name of the published label set, if the labels are one.
        license: Licence of the weights.
        sha256: Checksum of the file that they came from.
        revision: Revision of that file on the hub.
        seed: Seed of everything that was initialised at random.
        notes: How the weights were fitted to the model, for people.
        new_head: Whether the head is untrained.
        plugins: Distributions that `backbone` and `adapter` come from.
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
        """Return the name of a part in the registry: `distribution/name` if its distribution is known."""
        name = str(getattr(self, part))
        return f"{self.plugins[part].distribution}/{name}" if part in self.plugins else name

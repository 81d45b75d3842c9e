"""From a blueprint to modules. Every model is put together here: a new one, a saved one, and those of the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
from flax import nnx

from zoo.models.adapter import Adapter
from zoo.models.backbone import abstract, feature_shapes
from zoo.models.card import Card
from zoo.models.model import Model
from zoo.models.task.head import HeadInputs
from zoo.registry.spec import BackboneSpec, Preprocess


@dataclass(frozen=True)
class Blueprint:
    """Everything that determines the modules of a model.

    Attributes:
        spec: The backbone, with its strides as it is built (`BackboneSpec.built_with`).
        adapter: The task with its labels and options.
        preprocess: How images are prepared.
        in_channels: Channels of the images.
        build: Build options of the backbone.
        seed: Seed of everything random.
        declared: Take the stages' shapes as the spec declares them instead of tracing the backbone. Enough where only
            channels matter.
    """

    spec: BackboneSpec
    adapter: Adapter
    preprocess: Preprocess
    in_channels: int = 3
    build: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    declared: bool = False

    @cached_property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The shape of each stage's output that the head reads, for one image."""
        taps, size = self.adapter.taps(self.spec), self.preprocess.size
        if not self.declared:
            return feature_shapes(self.spec, size, taps, in_channels=self.in_channels, **self.build)
        rank = {"map": 4, "tokens": 3, "vector": 2}
        stages = [self.spec.stage(name) for name in taps]
        return {
            s.name: jax.ShapeDtypeStruct((*[1] * (rank[s.kind] - 1), s.channels), jax.numpy.float32) for s in stages
        }

    def head(self) -> nnx.Module:
        """Return the task's head, initialised."""
        inputs = HeadInputs(self.spec, self.shapes, self.preprocess.size)
        return self.adapter.build(inputs, rngs=nnx.Rngs(self.seed))

    def abstract_head(self, adapter: Adapter | None = None) -> nnx.Module:
        """Return the head with shapes instead of arrays, perhaps for another task, such as one with other classes."""
        other = replace(self, adapter=adapter) if adapter else self
        if other is not self:
            other.__dict__["shapes"] = self.shapes  # a task reads the same stages whatever its classes are
        return nnx.eval_shape(other.head)

    def backbone(self) -> nnx.Module:
        """Return the backbone with random values."""
        rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(self.seed), 1))
        module: nnx.Module = self.spec.build(rngs=rngs, in_channels=self.in_channels, **self.build)
        return module

    def abstract_backbone(self) -> nnx.Module:
        """Return the backbone with shapes instead of arrays."""
        return abstract(self.spec, in_channels=self.in_channels, **self.build)


def assemble(
    blueprint: Blueprint, card: Card, backbone: nnx.Module | None = None, head: nnx.Module | None = None
) -> Model:
    """Return a model in evaluation mode from the modules of a blueprint; missing modules are abstract."""
    model = Model(
        backbone or blueprint.abstract_backbone(),
        head or blueprint.abstract_head(),
        spec=blueprint.spec,
        adapter=blueprint.adapter,
        card=card,
    )
    model.eval()
    return model

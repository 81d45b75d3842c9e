"""What a task needs of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from flax import nnx

    from zoo.models.task.head import HeadInputs
    from zoo.registry.spec import BackboneSpec, Preprocess


class OnBackbone:
    """The part of a task that meets a backbone: stages, images, head, and pretrained weights of the head."""

    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        """Return the names of the stages that the head reads.

        Raises:
            ConfigError: The backbone does not fit the task.
        """
        raise NotImplementedError

    def backbone_options(self, spec: BackboneSpec) -> Mapping[str, Any]:
        """Return build options of the backbone that the task prefers, e.g. a smaller stride. The user's own win."""
        return {}

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """Return how images are prepared for this task, given how the weights want them. The user's own options win."""
        return preprocess

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        """Return the head, an `nnx.Module` that follows `zoo.models.task.head.Head`."""
        raise NotImplementedError

    def checkpoint_paths(self, spec: BackboneSpec) -> Mapping[str, str]:
        """Return the modules of the head that a backbone's checkpoint can fill: path in the head -> path there."""
        return {}

    def own_weights(self, spec: BackboneSpec) -> tuple[Self, Mapping[str, np.ndarray]]:
        """Return weights of the head that an option names, where they do not come with the backbone's.

        Returns:
            This task with the options that those weights were made for, and tensor name in the head -> array, with the
            axes of the checkpoint.
        """
        return self, {}

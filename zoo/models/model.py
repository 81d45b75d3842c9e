"""A model in Flax: a backbone, a head, and the card that says how its weights are used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from zoo.data.inputs import is_single
from zoo.errors import ConfigError
from zoo.models.adapter import Adapter, adjusted
from zoo.models.backbone import PIXELS, run_stages
from zoo.models.card import Card
from zoo.models.predictor import Predictor, as_list, prepare_one
from zoo.models.task.forward import ForwardPass
from zoo.numbers import BATCH_SIZE, check_number
from zoo.registry.spec import BackboneSpec

MIRRORED = "mirrored:"
"""Prefix of a batch's entries that hold features of mirror images, by stage."""


FEATURES = "features:"
"""Prefix of a batch's entries that hold cached features, by stage."""


class Model(nnx.Module):
    """A backbone and a head. `model(x)` maps normalised images (b, h, w, c) to outputs; `model.predict` takes files.

    Attributes:
        backbone: The backbone module.
        head: The head module. Every parameter is in the backbone or in the head.
        spec: The backbone's spec.
        adapter: The task, with its options and labels.
        card: Where the weights come from and how images are prepared, see `Card`.
        frozen: Paths of the modules that stay in evaluation mode after `.train()`.
        remat: Recompute the stages' activations in the backward pass.
    """

    def __init__(self, backbone: nnx.Module, head: nnx.Module, *, spec: BackboneSpec, adapter: Adapter, card: Card):
        self.backbone = backbone
        self.head = head
        self.spec = spec
        self.adapter = adapter
        self.card = card
        self.frozen: tuple[str, ...] = ()
        self.remat = False

    # Computing -------------------------------------------------------------------------------------------------
    def normalize(self, images: Array) -> Array:
        """Return normalised images for pixels, uint8 or float in [0, 1], (b, h, w, c)."""
        x = images.astype(jnp.float32)
        if images.dtype == jnp.uint8:
            x = x / 255
        shape = (1, 1, 1, -1)
        mean = jnp.asarray(self.card.preprocess.mean, jnp.float32).reshape(shape)
        std = jnp.asarray(self.card.preprocess.std, jnp.float32).reshape(shape)
        return (x - mean) / std

    def features(self, x: Array, at: Sequence[str]) -> dict[str, Array]:
        """Return the outputs of the named stages for normalised images (b, h, w, c). `PIXELS` names the images."""
        stages = [name for name in at if name != PIXELS]
        found = run_stages(self.backbone, x.astype(jnp.dtype(self.card.dtype)), stages, remat=self.remat)
        return {name: self.pixels(x) if name == PIXELS else found[name] for name in at}

    def pixels(self, x: Array) -> Array:
        """Undo `normalize`: return values in [0, 1] in float32; three channels are in the order RGB."""
        preprocess, shape = self.card.preprocess, (1, 1, 1, -1)
        mean, std = (jnp.asarray(v, jnp.float32).reshape(shape) for v in (preprocess.mean, preprocess.std))
        found = x.astype(jnp.float32) * std + mean
        return found[..., ::-1] if preprocess.channels == "BGR" else found

    def reduced(self, x: Array) -> dict[str, Array]:
        """Return what the head computes from, for normalised images. The feature cache stores this."""
        return self.head.reduce(self.features(x, self.adapter.taps(self.spec)))  # type: ignore[attr-defined]

    def mirrored(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the head computes from for the mirror images of a batch of pixels or cached features."""
        cached = {k.removeprefix(MIRRORED): value for k, value in batch.items() if k.startswith(MIRRORED)}
        return cached or self.reduced(self.normalize(batch["image"][:, :, ::-1]))

    def outputs(self, reduced: Mapping[str, Array]) -> Any:
        """Return the head's outputs in float32."""
        return jax.tree.map(lambda y: y.astype(jnp.float32), self.head(reduced))

    def forward(self, batch: Mapping[str, Any]) -> ForwardPass:
        """Return the pass of a batch of pixels (`image`), or of cached features, through the model."""
        return ForwardPass(self, features_of(batch) or self.reduced(self.normalize(batch["image"])))

    def __call__(self, x: Array) -> Any:
        return self.outputs(self.reduced(x))

    # Modes -----------------------------------------------------------------------------------------------------
    def train(self, **attributes: Any) -> None:
        """Set training mode. Frozen modules stay in evaluation mode."""
        super().train(**attributes)
        self._hold_frozen()

    def freeze(self, modules: Iterable[str]) -> None:
        """Keep these modules (paths such as `backbone.layer1`) in evaluation mode from now on."""
        self.frozen = tuple(modules)
        self._hold_frozen()

    def _hold_frozen(self) -> None:
        if not self.frozen:
            return
        frozen = set(self.frozen)
        for path, module in nnx.iter_modules(self):
            parts = [str(part) for part in path]
            if any(".".join(parts[:n]) in frozen for n in range(1, len(parts) + 1)):
                for name in ("use_running_average", "deterministic"):
                    if hasattr(module, name):
                        setattr(module, name, True)

    # Using -----------------------------------------------------------------------------------------------------
    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return self.adapter.labels

    def adjusted(self, **options: Any) -> Model:
        """Return this model with changed prediction options (`Adapter.adjustable`). The arrays are shared."""
        other: Model = nnx.merge(*nnx.split(self))
        other.adapter = adjusted(self.adapter, options)
        return other

    def predict(self, images: Any, *, batch_size: int = 32, **options: Any) -> Any:
        """Return the prediction for an image, or a list of predictions for several.

        Args:
            images: Paths, folders, patterns; PIL images; bytes or open files; arrays of NumPy or JAX, RGB, grey or
                RGBA, (height, width), (height, width, channels) or a batch of these, uint8 or floats from 0 to 1; or an
                iterable of any of them.
            batch_size: Images that are computed together.
            **options: Prediction options for this call only, see `adjusted`.

        Raises:
            DataError: A file is no image; the error names it. See `predict_each` for the predictions of the others.
        """
        check_number("batch_size", batch_size, BATCH_SIZE)
        if options:
            return self.adjusted(**options).predict(images, batch_size=batch_size)
        found = Predictor(self, batch_size)(images)
        return found[0] if is_single(images) else found

    def predict_each(self, images: Any, *, batch_size: int = 32, **options: Any) -> Iterator[Any]:
        """Yield for each image its prediction, or the `ZooError` that says what is wrong with the image.

        Images are read, and generators asked, batch by batch, so that any number of them fits in memory.

        Args:
            images: As for `predict`.
            batch_size: Images that are computed together.
            **options: Prediction options for this call only, see `adjusted`.
        """
        check_number("batch_size", batch_size, BATCH_SIZE)
        model = self.adjusted(**options) if options else self
        return Predictor(model, batch_size).rows(images)

    def prepare(self, images: Sequence[Path | np.ndarray]) -> np.ndarray:
        """Return files or uint8 images as one uint8 batch (b, h, w, c), prepared as the weights want them.

        All have the size `card.preprocess.size`.
        """
        card = replace(self.card, preprocess=replace(self.card.preprocess, frames=()))
        with ThreadPoolExecutor(4) as pool:
            return np.stack([pixels for pixels, _ in pool.map(partial(prepare_one, card), images)])

    def __repr__(self) -> str:
        card, size = self.card, self.card.preprocess.size
        return (
            f"Model({card.backbone} for {card.adapter}, {len(self.labels)} classes, {size[0]}x{size[1]}, "
            f"{card.dtype}, weights {card.weights or 'random'})"
        )

    __str__ = __repr__


@partial(jax.jit, static_argnums=(0, 3))
def _features(graphdef: nnx.GraphDef[Any], state: nnx.State, x: Array, at: tuple[str, ...]) -> dict[str, Array]:
    return run_stages(nnx.merge(graphdef, state), x, at)


def features_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cached features of a batch by stage; empty if it holds images."""
    return {name.removeprefix(FEATURES): value for name, value in batch.items() if name.startswith(FEATURES)}


def features(model_or_backbone: nnx.Module, images: Any, at: Sequence[str] | None = None) -> dict[str, Array]:
    """Return the feature maps of images, by stage.

    Args:
        model_or_backbone: A `Model`, or a bare backbone.
        images: For a model, images as `Model.predict` takes them. For either, a normalised float array (b, h, w, c).
        at: Names of stages (`zoo show NAME` lists them); the last one by default.

    Returns:
        {stage: array} in the order of `at`; maps are (b, h, w, c), tokens (b, n, c), vectors (b, c).
    """
    model = model_or_backbone if isinstance(model_or_backbone, Model) else None
    backbone = model.backbone if model else model_or_backbone
    stages = list(backbone.stages_for(None))  # type: ignore[attr-defined]
    names = tuple(at) if at is not None else (stages[-1],)
    if hasattr(images, "dtype") and jnp.issubdtype(images.dtype, jnp.floating):
        x = jnp.asarray(images)
    elif model:
        x = model.normalize(jnp.asarray(model.prepare(as_list(images, model.card))))
    else:
        raise ConfigError("a bare backbone has no preprocessing: give it a normalised float array (b, h, w, c).")
    if x.ndim != 4:
        raise ConfigError(f"images must be (batch, height, width, channels); this array is {x.shape}.")
    if model:
        x = x.astype(jnp.dtype(model.card.dtype))
    backbone.eval()
    graphdef, state = nnx.split(backbone)
    maps = _features(graphdef, state, x, names)
    return {name: maps[name] for name in names}  # a compiled function sorts the keys of a dict


def cite(model: Model | str) -> str:
    """Return BibTeX entries for a model: the paper of its backbone, and of its task if there is one."""
    from zoo.registry import registry

    if isinstance(model, str):
        name = model.split(".", 1)[0]
        return registry().backbone(name).citation
    entries = [model.spec.citation, registry().adapter(model.card.qualified("adapter")).citation]
    return "\n\n".join(entry for entry in entries if entry)


def parameter_count(module: nnx.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))

"""The task: each point is the expected position under a heatmap (integral regression, arXiv:1711.08229)."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from PIL import Image, ImageDraw

from zoo.data.transform import frame_of
from zoo.errors import ConfigError
from zoo.layers import Conv
from zoo.models.adapter import Adapter, Table, Training


class PointsPrediction(msgspec.Struct, frozen=True):
    """Points of one image: x, y of each, in pixels of the upright image."""

    file: str
    points: list[tuple[float, float]]


class Head(nnx.Module):
    """Map (b, h, w, c) -> x, y of each point (b, n, 2), in pixels of images of `size` (height, width)."""

    def __init__(self, stage: str, channels: int, count: int, size: tuple[int, int], rngs: nnx.Rngs):
        self.stage, self.size = stage, size
        self.conv = Conv(channels, 64, 3, 1, 1, rngs=rngs)
        self.places = Conv(64, count, 1, rngs=rngs)

    def reduce(self, features):
        return {self.stage: features[self.stage]}

    def reads(self):
        return {}

    def __call__(self, reduced):
        logits = self.places(jax.nn.relu(self.conv(reduced[self.stage])))
        images, height, width, count = logits.shape
        share = jax.nn.softmax(logits.reshape(images, -1, count), axis=1).reshape(logits.shape)
        y = (jnp.arange(height) + 0.5) * (self.size[0] / height)
        x = (jnp.arange(width) + 0.5) * (self.size[1] / width)
        return jnp.stack([jnp.einsum("bhwn,w->bn", share, x), jnp.einsum("bhwn,h->bn", share, y)], axis=-1)


@dataclass(frozen=True)
class Points(Adapter):
    """Options of point regression.

    Attributes:
        count: Number of points in an image.
    """

    count: int = 1

    targets_from = ("points",)
    primary = "r2"
    classes = False
    training = Training(
        recipe={"epochs": 20, "augment": {"scale": (0.7, 1.3), "ratio": (0.9, 1.1)}},
        moves={"points": "points"},
        invariant=("frame", "true_points"),  # only evaluations read them
    )

    def taps(self, spec):
        maps = [stage for stage in spec.stages if stage.kind == "map"]
        if not maps:
            raise ConfigError(
                f"{spec.name} has no stage that is a feature map, which points need. Choose another backbone."
            )
        return (maps[-1].name,)

    def framing(self, spec, preprocess):
        return replace(preprocess, crop_mode="letterbox", crop_pct=1.0)

    def build(self, inputs, *, rngs):
        (stage,) = inputs.shapes
        return Head(stage, inputs.shapes[stage].shape[-1], self.count, inputs.size, rngs)

    def fitted(self, dataset):
        counts = {len(sample.target.points) for sample in dataset}
        if counts != {self.count}:
            raise ConfigError(f"{dataset.name} has {sorted(counts)} points in an image: create the model with count=N.")
        return self

    # Learning --------------------------------------------------------------------------------------------------
    def targets(self, sample, preprocess):
        frame = frame_of(sample.target.size, preprocess)
        visible = np.array([point is not None for point in sample.target.points])
        true = np.array([point or (0, 0) for point in sample.target.points], np.float32)
        prepared = true * [frame.scale_x, frame.scale_y] + [frame.left, frame.top]
        return {
            "points": np.where(visible[:, None], prepared, 0).astype(np.float32),
            "point_valid": visible,
            "frame": np.array(frame, np.float32),
            "true_points": true,
        }

    def loss_terms(self, forward, batch):
        distance = jnp.abs(forward.outputs - batch["points"]).sum(-1)
        valid = batch["point_valid"]
        return {"l1": jnp.sum(jnp.where(valid, distance, 0.0), -1) / jnp.maximum(valid.sum(-1), 1)}

    # Predicting ------------------------------------------------------------------------------------------------
    def decode(self, forward, batch):
        frame = batch["frame"][:, None]
        return {"points": (forward.outputs - frame[..., 2:4]) / frame[..., :2]}

    def predictions(self, decoded, files):
        rows = decoded["points"].astype(float).round(2).tolist()
        return [PointsPrediction(file, [tuple(point) for point in row]) for file, row in zip(files, rows, strict=True)]

    def table(self, predictions):
        rows = [(one.file, i, f"{x:.1f}", f"{y:.1f}") for one in predictions for i, (x, y) in enumerate(one.points, 1)]
        return Table(("file", "point", "x", "y"), rows, right=("point", "x", "y"))

    def picture(self, pixels, prediction):
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        for x, y in prediction.points:
            draw.line([x - 4, y, x + 4, y], fill=(255, 0, 0))
            draw.line([x, y - 4, x, y + 4], fill=(255, 0, 0))
        return np.asarray(image)

    def metrics(self):
        return PointMetrics()

    def plots(self, evaluation, folder):
        """Draw the images with the largest losses, with predicted (red) and true (green) points."""
        written = []
        for number, (file, decoded, targets) in enumerate(evaluation.worst(4)):
            image = Image.fromarray(
                self.picture(np.asarray(Image.open(file).convert("RGB")), PointsPrediction("", decoded["points"]))
            )
            draw = ImageDraw.Draw(image)
            for (x, y), valid in zip(targets["true_points"], targets["point_valid"], strict=True):
                if valid:
                    draw.ellipse([x - 2, y - 2, x + 2, y + 2], outline=(0, 255, 0))
            image.save(folder / f"worst{number}.png")
            written.append(folder / f"worst{number}.png")
        return written


class PointMetrics:
    """`r2`, the explained variance of the positions, and `pixels`, the mean distance from the true points."""

    def __init__(self):
        self.predicted, self.true = [], []

    def update(self, decoded, batch):
        valid = batch["point_valid"]
        self.predicted.append(decoded["points"][valid])
        self.true.append(batch["true_points"][valid])

    def compute(self):
        predicted, true = np.concatenate(self.predicted), np.concatenate(self.true)
        if not len(true):
            return {"r2": 0.0, "pixels": 0.0, "points": 0}
        spread = float(np.square(true - true.mean(0)).sum())
        r2 = 1 - float(np.square(predicted - true).sum()) / max(spread, 1e-9)
        return {"r2": r2, "pixels": float(np.linalg.norm(predicted - true, axis=-1).mean()), "points": len(true)}

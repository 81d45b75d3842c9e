"""Style transfer: paint an image in the style of another.

There are three methods:

- `adain` (Huang and Belongie, arXiv:1703.06868): one network for any style. The backbone is the frozen encoder, and the
  head the decoder.
- `fast` (Johnson et al., arXiv:1603.08155): a network for each style, trained with the backbone as the loss network.
- `gatys` (Gatys et al., arXiv:1508.06576): the pixels of each image are optimised; no network is trained.

Every loss is relative to the mean square of its target (`losses.energy`), so that loss weights carry over between
backbones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zlib import crc32

import jax.numpy as jnp
import msgspec
import numpy as np
from flax import nnx
from jax import Array
from PIL import Image

from zoo.adapters.style import adain, checkpoints, fast, gatys, stages
from zoo.adapters.style.method import METHODS, Method
from zoo.adapters.style.pictures import Picture, contact_sheet, open_picture, style_crop, style_files, style_pixels
from zoo.adapters.style.stylize import stylize
from zoo.data import Dataset, Sample, decode, prepare
from zoo.errors import ConfigError
from zoo.models.adapter import Adapter, ForwardPass, HeadInputs, Inference, Training
from zoo.registry.hookspecs import hookimpl
from zoo.registry.options import Meta
from zoo.registry.spec import AdapterSpec, BackboneSpec, Part, Preprocess

if TYPE_CHECKING:
    from zoo.models.model import Model

__all__ = ["Painted", "Picture", "Style", "stylize"]

PREVIEWS, STYLES = 4, 2
"""Number of images, and of styles each is painted in, in the preview that is drawn after each epoch."""
SIDE = 128
"""Default side of training images in pixels. Trained networks paint images of any size."""


class Painted(msgspec.Struct, frozen=True, omit_defaults=True):
    """One image, painted.

    Attributes:
        file: The image.
        mean: The painted picture's mean colour: red, green and blue in [0, 1].
        picture: What `stylize` paints with its defaults: RGB, at the image's own size (method `gatys`: at most 512
            pixels on the longer side), with its colour profile. `numpy.asarray(picture)` is uint8 (h, w, 3). JSON does
            not have it, and evaluations do not paint it.
    """

    file: str
    mean: tuple[float, float, float]
    picture: Image.Image | None = None


@dataclass(frozen=True)
class Style(Adapter):
    """Options of style transfer."""

    method: Annotated[
        str,
        METHODS,
        Meta(
            "adain paints any style with one network; fast trains a network for one style; gatys optimises each image "
            "by itself, without training."
        ),
    ] = "adain"
    style: Annotated[
        str,
        Meta(
            "Style image, or a folder of them for adain. Training needs it, and so does `zoo predict` with adain or "
            "gatys, which paints in the first image."
        ),
    ] = ""
    style_size: Annotated[
        int,
        Meta(
            "Shorter side in pixels of style images in training; 0 for the size of the training images.",
            values="0 | a whole number at least 16",
        ),
    ] = 0
    style_layers: Annotated[
        tuple[str, ...], Meta("Backbone stages of the style loss; empty for the first of each stride.")
    ] = ()
    content_layer: Annotated[str, Meta("Backbone stage of the content loss; empty for the method's own.")] = ""
    content_weight: Annotated[
        float, Meta("Weight of the content loss; -1 for the method's own.", values="-1 | a finite number at least 0")
    ] = -1.0
    style_weight: Annotated[
        float, Meta("Weight of the style loss; -1 for the method's own.", values="-1 | a finite number at least 0")
    ] = -1.0
    tv_weight: Annotated[
        float,
        Meta(
            "Weight of the total variation loss, which keeps images smooth; -1 for the method's own.",
            values="-1 | a finite number at least 0",
        ),
    ] = -1.0
    net: Annotated[str, Meta("Safetensors file with a published network of fast, or a published decoder of adain.")] = (
        ""
    )
    width: Annotated[
        int,
        Meta(
            "Channels at full resolution; 0 for the method's own: 32 in fast, 16 in adain. With joined=false, the "
            "decoder's widths in sixteenths of the encoder's.",
            ge=0,
        ),
    ] = 0
    blocks: Annotated[int, Meta("Residual blocks of fast.", ge=1)] = 5
    padding: Annotated[
        Literal["reflect", "same"], Meta("Padding in fast: reflection, or zeros as TensorFlow's SAME.")
    ] = "reflect"
    upsample: Annotated[
        Literal["nearest", "transposed"], Meta("Upsampling in fast: nearest neighbour, or a transposed convolution.")
    ] = "nearest"
    output: Annotated[
        Literal["residual", "linear", "tanh"],
        Meta(
            "Last layer of fast: tanh of a normalised layer, the layer as it is, or a residual that is added to the "
            "image."
        ),
    ] = "tanh"
    eps: Annotated[float, Meta("Epsilon of the instance norms of fast.", gt=0)] = 1e-5
    joined: Annotated[
        bool,
        Meta(
            "The decoder of adain reads all style stages; otherwise the deepest alone, and mirrors the encoder as "
            "published ones do."
        ),
    ] = True
    normalized: Annotated[
        bool,
        Meta(
            "Scale the features that the decoder of adain reads to a mean square of 1, because the scales of backbones "
            "differ a hundredfold. Published decoders do not."
        ),
    ] = True
    steps: Annotated[int, Meta("Optimisation steps of gatys.", ge=1)] = 200
    optimizer: Annotated[Literal["lbfgs", "adam"], Meta("Optimizer of gatys.")] = "lbfgs"
    learning_rate: Annotated[float, Meta("Learning rate of adam in gatys, in pixel values from 0 to 1.", gt=0)] = 0.02
    init: Annotated[Literal["content", "noise"], Meta("What gatys starts from.")] = "content"
    pyramid_levels: Annotated[
        int,
        Meta("Sizes that gatys goes through, each twice the one before; 0 for as many as the image's size asks.", ge=0),
    ] = 0

    targets_from = ("images",)
    renamed = {"rate": "learning_rate", "scales": "pyramid_levels"}
    classes = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style_size and self.style_size < 16:
            raise ConfigError(f"style_size is {self.style_size}; accepted: 0 | a whole number at least 16.")
        for name in ("content_weight", "style_weight", "tv_weight"):
            if getattr(self, name) < 0 and getattr(self, name) != -1:
                raise ConfigError(f"{name} is {getattr(self, name)}; accepted: -1 | a finite number at least 0.")

    @property
    def training(self) -> Training:
        return Training(self.row.recipe, backbone="fixed", invariant=("style",))

    @property
    def row(self) -> Method:
        """The table row of the method."""
        return METHODS[self.method]

    # Backbone and head -----------------------------------------------------------------------------------------
    def style_stages(self, spec: BackboneSpec) -> tuple[str, ...]:
        """Return the stages of the style loss."""
        return stages.style_stages(spec, self.row.deepest, self.style_layers)

    def content_stage(self, spec: BackboneSpec) -> str:
        """Return the stage of the content loss."""
        return stages.named_content(spec, self.content_layer) if self.content_layer else self.row.content(spec)

    def taps(self, spec: BackboneSpec) -> tuple[str, ...]:
        self.style_stages(spec)
        self.content_stage(spec)
        return self.row.taps(self, spec)

    def framing(self, spec: BackboneSpec, preprocess: Preprocess) -> Preprocess:
        """Return the preprocessing with small images, unless the user chose a size: textures need no more pixels."""
        side = -(-max(SIDE, spec.min_size) // spec.size_multiple) * spec.size_multiple
        return replace(preprocess, size=(side, side)) if preprocess.size == spec.preprocess.size else preprocess

    def build(self, inputs: HeadInputs, *, rngs: nnx.Rngs) -> nnx.Module:
        return self.row.build(self, inputs.spec, rngs=rngs)

    def own_weights(self, spec: BackboneSpec) -> tuple[Self, Mapping[str, np.ndarray]]:
        if not self.net:
            return self, {}
        options, tensors = checkpoints.read_net(self.net, self.method)
        return replace(self, net="", **options), tensors

    def weight(self, name: str) -> float:
        """Return the weight of the loss `content`, `style` or `tv`."""
        given = getattr(self, f"{name}_weight")
        return self.row.weights[name] if given == -1 else given

    # Training --------------------------------------------------------------------------------------------------
    def fitted(self, dataset: Dataset) -> Self:
        self._terms()
        files = style_files(self.style)
        if self.row.one_style and len(files) != 1:
            raise ConfigError(
                f"method={self.method} learns one style, and {self.style} holds {len(files)} images; name one of them, "
                "or train method=adain."
            )
        for file in files:
            open_picture(file)
        return self

    def targets(self, sample: Sample, preprocess: Preprocess) -> dict[str, np.ndarray]:
        files = style_files(self.style)
        # The style of an image follows from its id, so that neither shuffling nor caching changes it.
        number = crc32(sample.id.encode())
        file = files[number % len(files)]
        size = self.style_size or min(preprocess.size)
        if self.row.one_style:
            return {"style": style_pixels(file, size, preprocess.background)}
        return {"style": style_crop(file, size, number, preprocess.background)}

    def loss_terms(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        return self._terms()(self, forward, batch)

    def _terms(self) -> Callable[..., dict[str, Array]]:
        """Return the loss of the method. Raises `ConfigError` for a method that trains no network."""
        if self.row.loss is None:
            raise ConfigError(
                f"method={self.method} optimises each image by itself and has nothing to train: use `zoo stylize IMAGE "
                f"--backbone NAME --set method={self.method} --style IMAGE`, or train method=adain or method=fast."
            )
        return self.row.loss

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {f"{name}_loss": self.weight(name) for name in self.row.weights}

    # Prediction ------------------------------------------------------------------------------------------------
    def decode(self, forward: ForwardPass, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Return the mean colours, `mean` (b, 3): evaluations need the losses, and no pictures."""
        return {"mean": jnp.mean(jnp.clip(forward.outputs, 0, 1), axis=(1, 2))}

    @property
    def inference(self) -> Inference:
        from zoo.adapters.style.prediction import Stylizer

        return Stylizer(self.method, self.style, self.row.one_style)

    def predictions(self, decoded: Mapping[str, np.ndarray], files: Sequence[str]) -> list[Painted]:
        if "picture" not in decoded:
            means = np.asarray(decoded["mean"], np.float64).tolist()
            return [Painted(file, tuple(mean)) for file, mean in zip(files, means, strict=True)]
        painted = []
        for file, pixels, icc in zip(files, decoded["picture"], decoded["icc"], strict=True):
            picture = Image.fromarray(pixels)
            if len(icc):
                picture.info["icc_profile"] = icc.tobytes()
            red, green, blue = (pixels[..., :3].mean((0, 1)) / 255).tolist()
            painted.append(Painted(file, (red, green, blue), picture))
        return painted

    @property
    def rasters(self) -> Mapping[str, Callable[[Painted], Image.Image]]:
        return {"painted": _picture}

    def preview(self, model: Model, dataset: Dataset, path: Path) -> Path | None:
        """A few photos above what the model makes of them, beside the style; all in one size, so one program."""
        whole = replace(model.card.preprocess, channels="RGB")
        files = [sample.image for sample, _ in zip(dataset, range(PREVIEWS), strict=False)]
        photos = [prepare(decode(file, background=whole.background), whole) for file in files]
        styles = style_files(self.style)[:STYLES] if self.style else []
        rows: list[list[Any]] = [[*photos]]
        for style in styles:
            how: dict[str, Any] = (
                {} if self.row.one_style else {"style": prepare(decode(style, background=whole.background), whole)}
            )
            rows.append([*(stylize(model, photo, untrained=True, **how) for photo in photos), style])
        return contact_sheet(rows, path)

    def next_step(self, run: Path) -> str:
        style = "" if self.row.one_style else " --style STYLE.jpg"
        return f"zoo stylize {run} IMAGE{style} --out OUT.png"

    def stylize(self, model: Model, *args: Any, **kwargs: Any) -> Picture:
        """Call `stylize`; for callers that hold a model only, such as the command line."""
        return stylize(model, *args, **kwargs)


def _picture(prediction: Painted) -> Image.Image:
    assert prediction.picture is not None  # only predictions of an evaluation have none
    return prediction.picture


CITATION = """@inproceedings{huang2017arbitrary,
  title = {Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization},
  author = {Huang, Xun and Belongie, Serge},
  booktitle = {International Conference on Computer Vision},
  year = {2017}
}"""


@hookimpl
def zoo_parts() -> list[Part]:
    return [
        Part(METHODS.name, "adain", adain.METHOD, "One network for any style (arXiv:1703.06868)."),
        Part(METHODS.name, "fast", fast.METHOD, "A network for each style (arXiv:1603.08155)."),
        Part(
            METHODS.name,
            "gatys",
            gatys.METHOD,
            "Optimises the pixels of each image; no network is trained (arXiv:1508.06576).",
        ),
    ]


@hookimpl
def zoo_adapters() -> list[AdapterSpec]:
    summary = "Style transfer: any style (adain), one style (fast), or without training (gatys)."
    return [AdapterSpec("style", Style, summary, "https://arxiv.org/abs/1703.06868", CITATION)]

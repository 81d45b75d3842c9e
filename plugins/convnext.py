"""ConvNeXt and ConvNeXt V2.

Papers: A ConvNet for the 2020s, arXiv:2201.03545; ConvNeXt V2: Co-designing and Scaling ConvNets with Masked
Autoencoders, arXiv:2301.00808. Names are timm's; torchvision's and transformers' layouts are read too. Weights: timm's
on the Hugging Face Hub (licence in each row below; those of V2 are not for commercial use). The `fcmae` files have no
row, because they lack the final norm and the classifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array

from zoo.blocks.transformer import drop_path_rates, gelu
from zoo.layers import Chain, Conv, DropPath, LayerNorm, Linear, Normal, global_avg_pool
from zoo.models.backbone import StagedModule, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import (
    BackboneSpec,
    ClassifierLayout,
    Preprocess,
    Range,
    Stage,
    Stored,
    WeightSpec,
    weight_table,
)

INIT = Normal(0.02, truncated=True)


class GlobalResponseNorm(nnx.Module):
    """Channels compete by their norm over the image (arXiv:2301.00808, section 3.2): (b, h, w, c) -> the same."""

    def __init__(self, channels: int):
        self.weight = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        # Clip the norm, because the root has no derivative at zero.
        square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=(1, 2), keepdims=True)
        norm = jnp.sqrt(jnp.maximum(square, 1e-30))
        share = norm / (jnp.mean(norm, -1, keepdims=True) + 1e-6)
        scale = 1 + self.weight[...].reshape(1, 1, 1, -1) * share
        return x * scale.astype(x.dtype) + self.bias[...].astype(x.dtype).reshape(1, 1, 1, -1)


class Mlp(nnx.Module):
    """Widening by four and back. `as_conv` says that the checkpoint stores the maps as 1x1 convolutions."""

    def __init__(self, channels: int, *, as_conv: bool, grn: bool, rngs: nnx.Rngs):
        layer = partial(Conv, kernel_size=1) if as_conv else Linear
        self.fc1 = layer(channels, 4 * channels, kernel_init=INIT, rngs=rngs)
        self.grn = GlobalResponseNorm(4 * channels) if grn else None
        self.fc2 = layer(4 * channels, channels, kernel_init=INIT, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = gelu(self.fc1(x))
        return self.fc2(y if self.grn is None else self.grn(y))


class Block(nnx.Module):
    """Depthwise 7x7, norm and MLP (arXiv:2201.03545, figure 4). V2 has a response norm in the MLP in place of the
    scale of the branch (`gamma`)."""

    def __init__(self, channels: int, rate: float, *, v2: bool, as_conv: bool, rngs: nnx.Rngs):
        self.conv_dw = Conv(channels, channels, 7, 1, 3, groups=channels, kernel_init=INIT, rngs=rngs)
        self.norm = LayerNorm(channels, eps=1e-6, rngs=rngs)
        self.mlp = Mlp(channels, as_conv=as_conv, grn=v2, rngs=rngs)
        self.gamma = None if v2 else nnx.Param(jnp.full((channels,), 1e-6, jnp.float32))
        self.drop_path = DropPath(rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.mlp(self.norm(self.conv_dw(x)))
        if self.gamma is not None:
            y = y * self.gamma[...].astype(y.dtype).reshape(1, 1, 1, -1)
        return x + self.drop_path(y)


class Group(nnx.Module):
    """Blocks of one width, behind a 2x2 convolution of stride 2 in all groups but the first."""

    def __init__(self, inputs: int, channels: int, blocks: list[Block], *, rngs: nnx.Rngs):
        norm = LayerNorm(inputs, eps=1e-6, rngs=rngs)
        reduce = partial(Conv, inputs, channels, 2, 2, kernel_init=INIT, rngs=rngs)
        self.downsample = None if inputs == channels else Chain([norm, reduce()])
        self.blocks = Chain(blocks)

    def __call__(self, x: Array) -> Array:
        return self.blocks(x if self.downsample is None else self.downsample(x))


class Head(nnx.Module):
    """What stands before the classifier: mean over the image, then the norm."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(channels, eps=1e-6, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.norm(global_avg_pool(x))


class ConvNeXt(StagedModule):
    """Patches of 4x4, four groups of blocks, and the norm of the pooled map. `middle` gives the stem two overlapping
    3x3 convolutions with so many channels between them; 0 is one convolution of stride 4."""

    def __init__(
        self,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        *,
        v2: bool,
        as_conv: bool,
        middle: int = 0,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        conv = partial(Conv, kernel_init=INIT, rngs=rngs)
        if middle:
            stem = [conv(in_channels, middle, 3, 2, 1), conv(middle, dims[0], 3, 2, 1)]
        else:
            stem = [conv(in_channels, dims[0], 4, 4)]
        self.stem = Chain([*stem, LayerNorm(dims[0], eps=1e-6, rngs=rngs)])
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        groups, inputs = [], dims[0]
        for depth, channels in zip(depths, dims, strict=True):
            blocks = [Block(channels, next(rates), v2=v2, as_conv=as_conv, rngs=rngs) for _ in range(depth)]
            groups.append(Group(inputs, channels, blocks, rngs=rngs))
            inputs = channels
        self.stages = nnx.List(groups)  # the checkpoint's name, hence no `Backbone`, which has a method `stages`
        self.head = Head(inputs, rngs=rngs)

    def stages_for(self, size: tuple[int, int] | None) -> Mapping[str, StageFunction]:
        del size
        return {"stem": self.stem, **{f"stages.{i}": group for i, group in enumerate(self.stages)}, "head": self.head}


# Depths and channels: arXiv:2201.03545, section 3.1; arXiv:2301.00808, section 4; below tiny timm's.
SIZES = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
STORED_AS_CONV = ("atto", "femto", "pico", "nano")
# name: (size, channels in the middle of an overlapping stem, tag of the default weights)
VARIANTS = {
    "convnext_atto": ("atto", 0, "d2_in1k"),
    "convnext_atto_ols": ("atto", 24, "a2_in1k"),
    "convnext_femto": ("femto", 0, "d1_in1k"),
    "convnext_femto_ols": ("femto", 24, "d1_in1k"),
    "convnext_pico": ("pico", 0, "d1_in1k"),
    "convnext_pico_ols": ("pico", 32, "d1_in1k"),
    "convnext_nano": ("nano", 0, "in12k_ft_in1k"),
    "convnext_nano_ols": ("nano", 80, "d1h_in1k"),
    "convnext_tiny": ("tiny", 0, "in12k_ft_in1k"),
    "convnext_small": ("small", 0, "in12k_ft_in1k"),
    "convnext_base": ("base", 0, "fb_in22k_ft_in1k"),
    "convnext_large": ("large", 0, "fb_in22k_ft_in1k"),
    "convnextv2_atto": ("atto", 0, "fcmae_ft_in1k"),
    "convnextv2_femto": ("femto", 0, "fcmae_ft_in1k"),
    "convnextv2_pico": ("pico", 0, "fcmae_ft_in1k"),
    "convnextv2_nano": ("nano", 0, "fcmae_ft_in22k_in1k"),
    "convnextv2_tiny": ("tiny", 0, "fcmae_ft_in22k_in1k"),
    "convnextv2_small": ("small", 0, None),
    "convnextv2_base": ("base", 0, "fcmae_ft_in22k_in1k"),
    "convnextv2_large": ("large", 0, "fcmae_ft_in22k_in1k"),
}


def torchvision_layout(depths: tuple[int, ...]) -> Mapping[str, str | Stored]:
    """torchvision's ConvNeXt, whose groups and the reductions between them stand in one list."""

    def pairs() -> Iterator[tuple[str, str | Stored]]:
        yield from (("stem", "features.0"), ("head.norm", "classifier.0"), ("head.fc", "classifier.2"))
        inner = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
        for i, depth in enumerate(depths):
            yield f"stages.{i}.downsample", f"features.{2 * i}"
            for j in range(depth):
                here, there = f"stages.{i}.blocks.{j}", f"features.{2 * i + 1}.{j}"
                yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in inner.items())
                yield f"{here}.gamma", Stored((f"{there}.layer_scale",), (-1, 1, 1))

    return dict(pairs())


def transformers_layout(size: str) -> Mapping[str, str | Stored]:
    """transformers' ConvNext and ConvNextV2, whose MLPs are affine maps in every size, without the name of the body
    before its tensors."""

    def pairs() -> Iterator[tuple[str, str | Stored]]:
        yield from (("stem.0", "embeddings.patch_embeddings"), ("stem.1", "embeddings.layernorm"))
        yield from (("head.norm", "layernorm"), ("head.fc", "classifier"))
        inner = {"conv_dw": "dwconv", "norm": "layernorm", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2"}
        for i, (depth, channels) in enumerate(zip(*SIZES[size], strict=True)):
            yield f"stages.{i}.downsample", f"encoder.stages.{i}.downsampling_layer"
            for j in range(depth):
                here, there = f"stages.{i}.blocks.{j}", f"encoder.stages.{i}.layers.{j}"
                yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in inner.items())
                yield f"{here}.gamma", f"{there}.layer_scale_parameter"
                for leaf in ("weight", "bias"):
                    yield f"{here}.mlp.grn.{leaf}", Stored((f"{there}.grn.{leaf}",), (1, 1, 1, -1))
                yield f"{here}.mlp.fc1.weight", Stored((f"{there}.pwconv1.weight",), (-1, channels))
                yield f"{here}.mlp.fc2.weight", Stored((f"{there}.pwconv2.weight",), (-1, 4 * channels))

    return dict(pairs())


# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    convnext_atto.d2_in1k 224 0.875 bicubic apache-2.0
    convnext_atto_ols.a2_in1k 224 0.875 bicubic apache-2.0
    convnext_base.clip_laion2b 256 1.0 bicubic apache-2.0 stats=clip classes=640
    convnext_base.clip_laion2b_augreg 256 1.0 bicubic apache-2.0 stats=clip classes=640
    convnext_base.clip_laion2b_augreg_ft_in12k 256 1.0 bicubic apache-2.0 stats=clip classes=11821
    convnext_base.clip_laion2b_augreg_ft_in12k_in1k 256 1.0 bicubic apache-2.0 stats=clip
    convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384 384 1.0 bicubic apache-2.0 stats=clip crop=squash
    convnext_base.clip_laion2b_augreg_ft_in1k 256 1.0 bicubic apache-2.0 stats=clip
    convnext_base.clip_laiona 256 1.0 bicubic apache-2.0 stats=clip classes=640
    convnext_base.clip_laiona_320 320 1.0 bicubic apache-2.0 stats=clip classes=640
    convnext_base.clip_laiona_augreg_320 320 1.0 bicubic apache-2.0 stats=clip classes=640
    convnext_base.clip_laiona_augreg_ft_in1k_384 384 1.0 bicubic apache-2.0 stats=clip
    convnext_base.dinov3_lvd1689m 224 1.0 bicubic dinov3-license classes=0
    convnext_base.eupe_lvd1689m 256 1.0 bicubic fair-noncommercial-research-license classes=0
    convnext_base.fb_in1k 224 0.875 bicubic apache-2.0
    convnext_base.fb_in22k 224 0.875 bicubic apache-2.0 classes=21841
    convnext_base.fb_in22k_ft_in1k 224 0.875 bicubic apache-2.0
    convnext_base.fb_in22k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnext_femto.d1_in1k 224 0.875 bicubic apache-2.0
    convnext_femto_ols.d1_in1k 224 0.875 bicubic apache-2.0
    convnext_large.dinov3_lvd1689m 224 1.0 bicubic dinov3-license classes=0
    convnext_large.fb_in1k 224 0.875 bicubic apache-2.0
    convnext_large.fb_in22k 224 0.875 bicubic apache-2.0 classes=21841
    convnext_large.fb_in22k_ft_in1k 224 0.875 bicubic apache-2.0
    convnext_large.fb_in22k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnext_nano.d1h_in1k 224 0.95 bicubic apache-2.0
    convnext_nano.in12k 224 0.95 bicubic apache-2.0 classes=11821
    convnext_nano.in12k_ft_in1k 224 0.95 bicubic apache-2.0
    convnext_nano.r384_ad_in12k 384 1.0 bicubic apache-2.0 classes=11821
    convnext_nano.r384_in12k 384 1.0 bicubic apache-2.0 classes=11821
    convnext_nano.r384_in12k_ft_in1k 384 1.0 bicubic apache-2.0
    convnext_nano_ols.d1h_in1k 224 0.95 bicubic apache-2.0
    convnext_pico.d1_in1k 224 0.875 bicubic apache-2.0
    convnext_pico_ols.d1_in1k 224 0.95 bicubic apache-2.0
    convnext_small.dinov3_lvd1689m 224 1.0 bicubic dinov3-license classes=0
    convnext_small.eupe_lvd1689m 256 1.0 bicubic fair-noncommercial-research-license classes=0
    convnext_small.fb_in1k 224 0.875 bicubic apache-2.0
    convnext_small.fb_in22k 224 0.875 bicubic apache-2.0 classes=21841
    convnext_small.fb_in22k_ft_in1k 224 0.875 bicubic apache-2.0
    convnext_small.fb_in22k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnext_small.in12k 224 0.95 bicubic apache-2.0 classes=11821
    convnext_small.in12k_ft_in1k 224 0.95 bicubic apache-2.0
    convnext_small.in12k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnext_tiny.dinov3_lvd1689m 224 1.0 bicubic dinov3-license classes=0
    convnext_tiny.eupe_lvd1689m 256 1.0 bicubic fair-noncommercial-research-license classes=0
    convnext_tiny.fb_in1k 224 0.875 bicubic apache-2.0
    convnext_tiny.fb_in22k 224 0.875 bicubic apache-2.0 classes=21841
    convnext_tiny.fb_in22k_ft_in1k 224 0.875 bicubic apache-2.0
    convnext_tiny.fb_in22k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnext_tiny.in12k 224 0.95 bicubic apache-2.0 classes=11821
    convnext_tiny.in12k_ft_in1k 224 0.95 bicubic apache-2.0
    convnext_tiny.in12k_ft_in1k_384 384 1.0 bicubic apache-2.0 crop=squash
    convnextv2_atto.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_base.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_base.fcmae_ft_in22k_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_base.fcmae_ft_in22k_in1k_384 384 1.0 bicubic cc-by-nc-4.0 crop=squash
    convnextv2_femto.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_large.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_large.fcmae_ft_in22k_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_large.fcmae_ft_in22k_in1k_384 384 1.0 bicubic cc-by-nc-4.0 crop=squash
    convnextv2_nano.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_nano.fcmae_ft_in22k_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_nano.fcmae_ft_in22k_in1k_384 384 1.0 bicubic cc-by-nc-4.0 crop=squash
    convnextv2_pico.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_tiny.fcmae_ft_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_tiny.fcmae_ft_in22k_in1k 224 0.875 bicubic cc-by-nc-4.0
    convnextv2_tiny.fcmae_ft_in22k_in1k_384 384 1.0 bicubic cc-by-nc-4.0 crop=squash
""")
PAPERS = {
    "ConvNeXt": (
        "https://arxiv.org/abs/2201.03545",
        """@inproceedings{liu2022convnet,
  title = {A {ConvNet} for the 2020s},
  author = {Liu, Zhuang and Mao, Hanzi and Wu, Chao-Yuan and Feichtenhofer, Christoph and Darrell, Trevor and
    Xie, Saining},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}""",
    ),
    "ConvNeXt V2": (
        "https://arxiv.org/abs/2301.00808",
        """@inproceedings{woo2023convnext,
  title = {{ConvNeXt V2}: Co-designing and Scaling {ConvNets} with Masked Autoencoders},
  author = {Woo, Sanghyun and Debnath, Shoubhik and Hu, Ronghang and Chen, Xinlei and Liu, Zhuang and Kweon, In So
    and Xie, Saining},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2023}
}""",
    ),
}


def _spec(name: str) -> BackboneSpec:
    size, middle, tag = VARIANTS[name]
    depths, dims = SIZES[size]
    v2 = name.startswith("convnextv2")
    family = "ConvNeXt V2" if v2 else "ConvNeXt"
    layouts = {}
    if v2 or size not in STORED_AS_CONV:
        layouts["transformers"] = partial(transformers_layout, size)
    if not v2 and size not in STORED_AS_CONV:
        layouts["torchvision"] = partial(torchvision_layout, depths)
    return BackboneSpec(
        name=name,
        family=family,
        build=partial(ConvNeXt, depths, dims, v2=v2, as_conv=size in STORED_AS_CONV, middle=middle),
        stages=(
            Stage("stem", dims[0], 4, modules=("stem",)),
            *(Stage(f"stages.{i}", c, 4 * 2**i, modules=(f"stages.{i}",)) for i, c in enumerate(dims)),
            Stage("head", dims[-1], 1, kind="vector", modules=("head",)),
        ),
        classifier=ClassifierLayout("head.fc"),
        preprocess=Preprocess(interpolation="bicubic"),
        options={"drop_path_rate": Range(0.0)},
        pretrained=tag,
        layouts=layouts,
        paper=PAPERS[family][0],
        citation=PAPERS[family][1],
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

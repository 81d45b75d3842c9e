"""Swin Transformer.

Paper: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, arXiv:2103.14030. Names are timm's;
torchvision's and transformers' layouts are read too. Weights: timm's on the Hugging Face hub (licence in each row).
Windows and shifts are those of the size that the weights were made for; a map that windows do not divide is padded at
the bottom and right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from zoo.blocks.transformer import Mlp, attend, drop_path_rates
from zoo.layers import Chain, Conv, DropPath, LayerNorm, Linear, Normal, global_avg_pool
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Preprocess, Range, Stage, Stored, WeightSpec, weight_table

Layout = Callable[[], Mapping[str, str | Stored]]


def to_windows(x: Array, side: int) -> Array:
    """(b, h, w, c) -> (b, windows, side * side, c), windows and their pixels row by row."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, -1, side * side, c)


def from_windows(x: Array, side: int, height: int, width: int) -> Array:
    """The inverse of `to_windows`."""
    b, c = x.shape[0], x.shape[-1]
    x = x.reshape(b, height // side, width // side, side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, height, width, c)


def offset_index(side: int) -> np.ndarray:
    """Return the row of the bias table for the offset between each pair of pixels of a window, (n, n)."""
    places = np.stack(np.divmod(np.arange(side * side), side))
    down, right = places[:, :, None] - places[:, None, :] + side - 1
    return down * (2 * side - 1) + right


def shift_mask(height: int, width: int, side: int, shift: int) -> np.ndarray:
    """Return a bias of -100 between pixels that are in one window only because of the cyclic shift, else 0.

    Shape (windows, 1, n, n); section 3.2, figure 4.
    """

    def regions(length: int) -> np.ndarray:
        return np.searchsorted([length - side, length - shift], np.arange(length), side="right")

    region = regions(height)[:, None] * 3 + regions(width)[None, :]
    cells = region.reshape(height // side, side, width // side, side).transpose(0, 2, 1, 3).reshape(-1, side * side)
    apart = cells[:, :, None] != cells[:, None, :]
    return np.where(apart, np.float32(-100), np.float32(0))[:, None]


class WindowAttention(nnx.Module):
    """Self-attention in windows of `side` pixels, shifted by `shift` pixels: (b, h, w, c) -> the same.

    A learned bias is added for each head and offset (eq. 4).
    """

    def __init__(self, dim: int, heads: int, side: int, shift: int, *, rngs: nnx.Rngs):
        table = Normal(0.02, truncated=True)(rngs.params(), ((2 * side - 1) ** 2, heads))
        self.relative_position_bias_table = nnx.Param(table)
        self.qkv = Linear(dim, 3 * dim, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs)
        self.heads, self.side, self.shift = heads, side, shift

    def __call__(self, x: Array) -> Array:
        _, h, w, _ = x.shape
        side, shift = self.side, self.shift
        # The reference shifts first and pads then.
        x = jnp.roll(x, (-shift, -shift), (1, 2)) if shift else x
        x = jnp.pad(x, ((0, 0), (0, -h % side), (0, -w % side), (0, 0)))
        height, width = x.shape[1:3]
        bias = self.relative_position_bias_table[...][offset_index(side)].transpose(2, 0, 1)[None, None]
        if shift:
            bias = bias + shift_mask(height, width, side, shift)[None]
        x = from_windows(self._attend(to_windows(x, side), bias), side, height, width)[:, :h, :w]
        return jnp.roll(x, (shift, shift), (1, 2)) if shift else x

    def _attend(self, x: Array, bias: Array) -> Array:
        """x (b, windows, n, c), bias (1, windows or 1, heads, n, n)."""
        parts = self.qkv(x).reshape(*x.shape[:3], 3, self.heads, -1)
        q, k, v = parts.transpose(3, 0, 1, 4, 2, 5)
        return self.proj(attend(q, k, v, bias).swapaxes(2, 3).reshape(x.shape))


class Block(nnx.Module):
    """x + attention(norm(x)), then the same with the MLP (eq. 3), on maps (b, h, w, c)."""

    def __init__(self, dim: int, heads: int, side: int, shift: int, rate: float, *, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(dim, eps=1e-5, rngs=rngs)
        self.attn = WindowAttention(dim, heads, side, shift, rngs=rngs)
        self.drop_path1 = DropPath(rate, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=1e-5, rngs=rngs)
        self.mlp = Mlp(dim, 4 * dim, "gelu", rngs=rngs)
        self.drop_path2 = DropPath(rate, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class PatchEmbed(nnx.Module):
    """Patches of 4x4 pixels and a norm."""

    def __init__(self, in_channels: int, dim: int, *, rngs: nnx.Rngs):
        self.proj = Conv(in_channels, dim, 4, 4, kernel_init=Normal(0.02, truncated=True), rngs=rngs)
        self.norm = LayerNorm(dim, eps=1e-5, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.proj(x))


class PatchMerging(nnx.Module):
    """Each 2x2 pixels side by side, column by column, then half as many channels; odd sides are padded with zeros."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * dim, eps=1e-5, rngs=rngs)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        x = x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(x.reshape(*x.shape[:3], 4 * c)))


class Layer(nnx.Module):
    """Blocks of one width, every other one with shifted windows, behind a merging in all layers but the first."""

    def __init__(self, downsample: PatchMerging | None, blocks: list[Block]):
        self.downsample = downsample
        self.blocks = Chain(blocks)

    def __call__(self, x: Array) -> Array:
        return self.blocks(x if self.downsample is None else self.downsample(x))


class Swin(Backbone):
    """Patches, four layers of blocks, and the pooled norm of the last map."""

    def __init__(
        self,
        dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        size: int,
        *,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.patch_embed = PatchEmbed(in_channels, dim, rngs=rngs)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        layers = []
        for i, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            # Where the native map is one window there is nothing to shift, and other sizes keep to that.
            shift = window // 2 if size // (4 * 2**i) > window else 0
            merging = PatchMerging(dim * 2 ** (i - 1), rngs=rngs) if i else None
            blocks = [
                Block(dim * 2**i, count, window, shift if j % 2 else 0, next(rates), rngs=rngs) for j in range(depth)
            ]
            layers.append(Layer(merging, blocks))
        self.layers = nnx.List(layers)
        self.norm = LayerNorm(dim * 2 ** (len(depths) - 1), eps=1e-5, rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return {
            "stem": self.patch_embed,
            **{f"layers.{i}": layer for i, layer in enumerate(self.layers)},
            "head": lambda x: global_avg_pool(self.norm(x)),
        }


# arXiv:2103.14030, section 3.3: (channels, depths, heads).
SIZES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
# name: (size, side of a window, side of the images, tag of the default weights)
VARIANTS = {
    "swin_tiny_patch4_window7_224": ("tiny", 7, 224, "ms_in1k"),
    "swin_small_patch4_window7_224": ("small", 7, 224, "ms_in22k_ft_in1k"),
    "swin_base_patch4_window7_224": ("base", 7, 224, "ms_in22k_ft_in1k"),
    "swin_base_patch4_window12_384": ("base", 12, 384, "ms_in22k_ft_in1k"),
    "swin_large_patch4_window7_224": ("large", 7, 224, "ms_in22k_ft_in1k"),
    "swin_large_patch4_window12_384": ("large", 12, 384, "ms_in22k_ft_in1k"),
}


def torchvision_layout(depths: tuple[int, ...]) -> Mapping[str, str]:
    """torchvision's Swin, whose layers and the mergings between them stand in one list."""

    def pairs() -> Iterator[tuple[str, str]]:
        yield from (("patch_embed.proj", "features.0.0"), ("patch_embed.norm", "features.0.2"), ("head.fc", "head"))
        for i, depth in enumerate(depths):
            yield f"layers.{i}.downsample", f"features.{2 * i}"
            for j in range(depth):
                here, there = f"layers.{i}.blocks.{j}", f"features.{2 * i + 1}.{j}"
                yield from ((here, there), (f"{here}.mlp.fc1", f"{there}.mlp.0"), (f"{here}.mlp.fc2", f"{there}.mlp.3"))

    return dict(pairs())


def transformers_layout(depths: tuple[int, ...]) -> Mapping[str, str | Stored]:
    """transformers' Swin, whose mergings end the layer before, without the name of the body before its tensors."""
    inner = {
        "norm1": "layernorm_before",
        "attn.proj": "attention.output.dense",
        "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }

    def pairs() -> Iterator[tuple[str, str | Stored]]:
        yield "patch_embed.proj", "embeddings.patch_embeddings.projection"
        yield from (("patch_embed.norm", "embeddings.norm"), ("norm", "layernorm"), ("head.fc", "classifier"))
        for i, depth in enumerate(depths):
            if i:
                yield f"layers.{i}.downsample", f"encoder.layers.{i - 1}.downsample"
            for j in range(depth):
                here, there = f"layers.{i}.blocks.{j}", f"encoder.layers.{i}.blocks.{j}"
                yield from ((f"{here}.{a}", f"{there}.{b}") for a, b in inner.items())
                for leaf in ("weight", "bias"):
                    names = tuple(f"{there}.attention.self.{part}.{leaf}" for part in ("query", "key", "value"))
                    yield f"{here}.attn.qkv.{leaf}", Stored(names)

    return dict(pairs())


CITATION = """@inproceedings{liu2021swin,
  title = {Swin Transformer: Hierarchical Vision Transformer using Shifted Windows},
  author = {Liu, Ze and Lin, Yutong and Cao, Yue and Hu, Han and Wei, Yixuan and Zhang, Zheng and Lin, Stephen and
    Guo, Baining},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year = {2021}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    swin_base_patch4_window12_384.ms_in1k 384 1.0 bicubic mit
    swin_base_patch4_window12_384.ms_in22k 384 1.0 bicubic mit classes=21841
    swin_base_patch4_window12_384.ms_in22k_ft_in1k 384 1.0 bicubic mit
    swin_base_patch4_window7_224.ms_in1k 224 0.9 bicubic mit
    swin_base_patch4_window7_224.ms_in22k 224 0.9 bicubic mit classes=21841
    swin_base_patch4_window7_224.ms_in22k_ft_in1k 224 0.9 bicubic mit
    swin_large_patch4_window12_384.ms_in22k 384 1.0 bicubic mit classes=21841
    swin_large_patch4_window12_384.ms_in22k_ft_in1k 384 1.0 bicubic mit
    swin_large_patch4_window7_224.ms_in22k 224 0.9 bicubic mit classes=21841
    swin_large_patch4_window7_224.ms_in22k_ft_in1k 224 0.9 bicubic mit
    swin_small_patch4_window7_224.ms_in1k 224 0.9 bicubic mit
    swin_small_patch4_window7_224.ms_in22k 224 0.9 bicubic mit classes=21841
    swin_small_patch4_window7_224.ms_in22k_ft_in1k 224 0.9 bicubic mit
    swin_tiny_patch4_window7_224.ms_in1k 224 0.9 bicubic mit
    swin_tiny_patch4_window7_224.ms_in22k 224 0.9 bicubic mit classes=21841
    swin_tiny_patch4_window7_224.ms_in22k_ft_in1k 224 0.9 bicubic mit
""")


def _spec(name: str) -> BackboneSpec:
    size, window, side, tag = VARIANTS[name]
    dim, depths, heads = SIZES[size]
    layouts: dict[str, Layout] = {"transformers": partial(transformers_layout, depths)}
    if size != "large" and side == 224:
        layouts["torchvision"] = partial(torchvision_layout, depths)
    layers = (Stage(f"layers.{i}", dim * 2**i, 4 * 2**i, modules=(f"layers.{i}",)) for i in range(4))
    return BackboneSpec(
        name=name,
        family="Swin Transformer",
        build=partial(Swin, dim, depths, heads, window, side),
        stages=(
            Stage("stem", dim, 4, modules=("patch_embed",)),
            *layers,
            Stage("head", 8 * dim, 1, kind="vector", modules=("norm",)),
        ),
        classifier=ClassifierLayout("head.fc"),
        preprocess=Preprocess((side, side), interpolation="bicubic", crop_pct=0.9 if side == 224 else 1.0),
        options={"drop_path_rate": Range(0.0)},
        pretrained=tag,
        layouts=layouts,
        size_multiple=4,
        ignored={
            "*relative_position_index": "an index that follows from the side of a window",
            "*attn_mask": "a mask that follows from the size of the images",
        },
        paper="https://arxiv.org/abs/2103.14030",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

"""EVA-02: vision transformers with rotary positions and gated MLPs.

Paper: EVA-02: A Visual Representation for Neon Genesis, arXiv:2303.11331. Names are timm's. Weights: timm's on the
Hugging Face hub. Queries and keys are turned by angles that grow along the rows and columns of the image
(arXiv:2104.09864, in two dimensions), beside a learned position embedding; keys have no bias. The base and large nets
keep the three input maps of attention and the two of the MLP apart, and have a norm inside the MLP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from zoo.blocks.transformer import (
    SIZES,
    PlainTransformer,
    TransformerConfig,
    attend,
    join_heads,
    plain_spec,
    split_heads,
)
from zoo.errors import ConfigError
from zoo.layers import DropPath, LayerNorm, Linear
from zoo.models.backbone import StageFunction
from zoo.registry.hookspecs import hookimpl
from zoo.registry.spec import BackboneSpec, WeightSpec, weight_table

Grid = tuple[int, int]
PRETRAINED_GRID = 16
"""Rows and columns of patches in pretraining: positions in other grids are scaled to theirs."""


@dataclass(frozen=True)
class EvaConfig(TransformerConfig):
    """`apart`: the maps within attention and MLP are separate, and the MLP has a norm."""

    apart: bool = False


def angles(grid: Grid, head_dim: int, prefix: int) -> Array:
    """(prefix + rows * columns, head_dim / 2): position times frequency 10000^(-4i / head_dim), the row's first, then
    the column's; nothing turns the prefix."""
    bands = head_dim // 4
    frequencies = jnp.asarray(10000.0 ** -(np.arange(bands) / bands), jnp.float32).reshape(1, 1, bands)
    rows, columns = (jnp.arange(n, dtype=jnp.float32) * (PRETRAINED_GRID / n) for n in grid)
    shape = (*grid, bands)
    turns = jnp.concatenate(
        [
            jnp.broadcast_to(rows.reshape(-1, 1, 1) * frequencies, shape),
            jnp.broadcast_to(columns.reshape(1, -1, 1) * frequencies, shape),
        ],
        axis=-1,
    )
    return jnp.pad(turns.reshape(-1, 2 * bands), ((prefix, 0), (0, 0)))


def rotate(x: Array, turns: Array) -> Array:
    """Neighbouring pairs of channels of x (b, heads, n, d) turned by the angles (n, d / 2); in float32."""
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    a, b = pairs[..., 0], pairs[..., 1]
    sin, cos = (f(turns).reshape(1, 1, *turns.shape) for f in (jnp.sin, jnp.cos))
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape).astype(x.dtype)


class EvaAttention(nnx.Module):
    """Multi-head self-attention whose queries and keys are turned by position: (b, n, c) -> (b, n, c)."""

    def __init__(self, dim: int, heads: int, apart: bool, *, rngs: nnx.Rngs):
        if apart:
            self.q_proj = Linear(dim, dim, rngs=rngs)
            self.k_proj = Linear(dim, dim, bias=False, rngs=rngs)
            self.v_proj = Linear(dim, dim, rngs=rngs)
        else:
            self.qkv = Linear(dim, 3 * dim, bias=False, rngs=rngs)
            self.q_bias = nnx.Param(jnp.zeros((dim,), jnp.float32))
            self.v_bias = nnx.Param(jnp.zeros((dim,), jnp.float32))
        self.proj = Linear(dim, dim, rngs=rngs)
        self.heads, self.apart = heads, apart

    def _maps(self, x: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values (b, n, c)."""
        if self.apart:
            return self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        q_bias, v_bias = (bias[...].astype(x.dtype).reshape(1, 1, -1) for bias in (self.q_bias, self.v_bias))
        return q + q_bias, k, v + v_bias

    def __call__(self, x: Array, grid: Grid, prefix: int) -> Array:
        q, k, v = (split_heads(part, self.heads) for part in self._maps(x))
        turns = angles(grid, q.shape[-1], prefix)
        return self.proj(join_heads(attend(rotate(q, turns), rotate(k, turns), v)))


class SwiGlu(nnx.Module):
    """silu(a x) * (b x), then a map back (arXiv:2002.05202, eq. 6); a and b in one map."""

    def __init__(self, dim: int, hidden: int, *, rngs: nnx.Rngs):
        self.fc1 = Linear(dim, 2 * hidden, rngs=rngs)
        self.fc2 = Linear(hidden, dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        gate, value = jnp.split(self.fc1(x), 2, axis=-1)
        return self.fc2(jax.nn.silu(gate) * value)


class NormedSwiGlu(nnx.Module):
    """`SwiGlu` with a and b apart and a norm before the map back."""

    def __init__(self, dim: int, hidden: int, eps: float, *, rngs: nnx.Rngs):
        self.fc1_g = Linear(dim, hidden, rngs=rngs)
        self.fc1_x = Linear(dim, hidden, rngs=rngs)
        self.norm = LayerNorm(hidden, eps=eps, rngs=rngs)
        self.fc2 = Linear(hidden, dim, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.fc2(self.norm(jax.nn.silu(self.fc1_g(x)) * self.fc1_x(x)))


class EvaBlock(nnx.Module):
    """x + attention(norm(x)), then the same with the gated MLP: (b, n, c) -> (b, n, c)."""

    def __init__(self, config: EvaConfig, drop_path: float, *, rngs: nnx.Rngs):
        dim, eps, hidden = config.dim, config.eps, int(config.dim * config.mlp_ratio)
        self.norm1 = LayerNorm(dim, eps=eps, rngs=rngs)
        self.attn = EvaAttention(dim, config.heads, config.apart, rngs=rngs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=eps, rngs=rngs)
        self.mlp = NormedSwiGlu(dim, hidden, eps, rngs=rngs) if config.apart else SwiGlu(dim, hidden, rngs=rngs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)
        self.prefix = config.prefix

    def __call__(self, x: Array, grid: Grid | None) -> Array:
        if grid is None:
            patches = x.shape[1] - self.prefix
            grid = (math.isqrt(patches),) * 2
            if math.prod(grid) != patches:
                raise ConfigError(
                    f"{patches} patches do not form a square, and rotary positions need their rows and columns: "
                    "pass the images' size to run_stages."
                )
        x = x + self.drop_path1(self.attn(self.norm1(x), grid, self.prefix))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class Eva02(PlainTransformer):
    """A plain transformer whose blocks need to know the rows and columns of patches."""

    def __init__(self, config: EvaConfig, *, drop_path_rate: float = 0.0, in_channels: int = 3, rngs: nnx.Rngs):
        super().__init__(config, block=EvaBlock, drop_path_rate=drop_path_rate, in_channels=in_channels, rngs=rngs)

    def stages(self) -> Mapping[str, StageFunction]:
        return self.stages_for(None)

    def stages_for(self, size: tuple[int, int] | None) -> Mapping[str, StageFunction]:
        patch = self.config.patch
        grid = None if size is None else (size[0] // patch, size[1] // patch)
        blocks = {f"blocks.{i}": partial(block, grid=grid) for i, block in enumerate(self.blocks)}
        return {**super().stages(), **blocks}


# arXiv:2303.11331 (MLPs of two thirds of four times the width). name: (size, image side, tag of the default
# weights)
VARIANTS = {
    "eva02_tiny_patch14_224": ("tiny", 224, "mim_in22k"),
    "eva02_tiny_patch14_336": ("tiny", 336, "mim_in22k_ft_in1k"),
    "eva02_small_patch14_224": ("small", 224, "mim_in22k"),
    "eva02_small_patch14_336": ("small", 336, "mim_in22k_ft_in1k"),
    "eva02_base_patch14_224": ("base", 224, "mim_in22k"),
    "eva02_base_patch14_448": ("base", 448, "mim_in22k_ft_in22k_in1k"),
    "eva02_large_patch14_224": ("large", 224, "mim_in22k"),
    "eva02_large_patch14_448": ("large", 448, "mim_in22k_ft_in22k_in1k"),
}
CITATION = """@article{fang2024eva02,
  title = {{EVA-02}: A Visual Representation for Neon Genesis},
  author = {Fang, Yuxin and Sun, Quan and Wang, Xinggang and Huang, Tiejun and Wang, Xinlong and Cao, Yue},
  journal = {Image and Vision Computing},
  year = {2024}
}"""

# timm's configuration of its weights on the hub: size, crop, interpolation, licence.
WEIGHTS = weight_table("""
    eva02_base_patch14_224.mim_in22k 224 0.9 bicubic mit stats=clip classes=0
    eva02_base_patch14_448.mim_in22k_ft_in1k 448 1.0 bicubic mit stats=clip
    eva02_base_patch14_448.mim_in22k_ft_in22k 448 1.0 bicubic mit stats=clip classes=21841 crop=squash
    eva02_base_patch14_448.mim_in22k_ft_in22k_in1k 448 1.0 bicubic mit stats=clip crop=squash
    eva02_large_patch14_224.mim_in22k 224 0.9 bicubic mit stats=clip classes=0
    eva02_large_patch14_224.mim_m38m 224 0.9 bicubic mit stats=clip classes=0
    eva02_large_patch14_448.mim_in22k_ft_in1k 448 1.0 bicubic mit stats=clip
    eva02_large_patch14_448.mim_in22k_ft_in22k 448 1.0 bicubic mit stats=clip classes=21841 crop=squash
    eva02_large_patch14_448.mim_in22k_ft_in22k_in1k 448 1.0 bicubic mit stats=clip crop=squash
    eva02_large_patch14_448.mim_m38m_ft_in1k 448 1.0 bicubic mit stats=clip
    eva02_large_patch14_448.mim_m38m_ft_in22k 448 1.0 bicubic mit stats=clip classes=21841 crop=squash
    eva02_large_patch14_448.mim_m38m_ft_in22k_in1k 448 1.0 bicubic mit stats=clip crop=squash
    eva02_small_patch14_224.mim_in22k 224 0.9 bicubic mit stats=clip classes=0
    eva02_small_patch14_336.mim_in22k_ft_in1k 336 1.0 bicubic mit stats=clip
    eva02_tiny_patch14_224.mim_in22k 224 0.9 bicubic mit stats=clip classes=0
    eva02_tiny_patch14_336.mim_in22k_ft_in1k 336 1.0 bicubic mit stats=clip
""")
BY_NAME = {weights.name: weights for weights in WEIGHTS}


def _spec(name: str) -> BackboneSpec:
    size, side, tag = VARIANTS[name]
    config = EvaConfig(
        14, side // 14, *SIZES[size], 4 * 2 / 3, pool="avg", fc_norm=True, apart=size in ("base", "large")
    )
    return plain_spec(
        config,
        BY_NAME[f"{name}.{tag}"],
        build=Eva02,
        family="EVA-02",
        paper="https://arxiv.org/abs/2303.11331",
        citation=CITATION,
    )


@hookimpl
def zoo_backbones() -> list[BackboneSpec]:
    return [*map(_spec, VARIANTS)]


@hookimpl
def zoo_weights() -> list[WeightSpec]:
    return [*WEIGHTS]

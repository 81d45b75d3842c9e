"""The plain vision transformer: patch and position embeddings, equal blocks, and one vector at the end.

Paper: An Image is Worth 16x16 Words, arXiv:2010.11929. Families that differ from it in numbers only are rows of
`TransformerConfig`. Attribute names are those of timm's VisionTransformer. Tokens are (b, n, c): the prefix (class
token, registers) first, then the patches row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from zoo.errors import WeightsError
from zoo.layers import Conv, DropPath, LayerNorm, Linear, Normal
from zoo.models.backbone import Backbone, StageFunction
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Range, Stage, WeightSpec

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x times the normal distribution function of x (arXiv:1606.08415)."""
    # By erf, which XLA's CPU backend computes nearly three times as fast as the erfc of `jax.nn.gelu`.
    return x * (lax.erf(x * x.dtype.type(math.sqrt(0.5))) + 1) / 2


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x sigmoid(1.702 x), the approximation that the first published CLIP weights were trained with."""
    return x * jax.nn.sigmoid(x.dtype.type(1.702) * x)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": quick_gelu,
}
# arXiv:2010.11929, table 1, and arXiv:2012.12877, table 1: (dim, depth, heads).
SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
# arXiv:2103.17239, section 2, for networks of this depth. With the much smaller values of later work, an untrained
# network gives all images the same vector.
LAYER_SCALE = 0.1


@dataclass(frozen=True)
class TransformerConfig:
    """Configuration of a plain vision transformer.

    Attributes:
        patch: side of a patch in pixels.
        grid: side of the checkpoint's grid of position embeddings, in patches.
        dim: width of the tokens.
        depth: number of blocks.
        heads: attention heads of a block.
        mlp_ratio: hidden width of the MLP divided by `dim`.
        class_token: whether a class token leads the tokens.
        registers: number of further leading tokens (arXiv:2309.16588).
        embed_prefix: whether the leading tokens have position embeddings too.
        pre_norm: a norm before the blocks, and a patch embedding without bias (arXiv:2103.00020).
        layer_scale: initial value of the factors on each residual branch (arXiv:2103.17239), None for no factors.
        act: activation of the MLP, a name in `ACTIVATIONS`.
        eps: of the norms.
        pool: what represents the image: the class `token`, the `avg` of the patches, or attention pooling (`map`).
        fc_norm: the last norm comes after pooling, under this name.
    """

    patch: int
    grid: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    class_token: bool = True
    registers: int = 0
    embed_prefix: bool = True
    pre_norm: bool = False
    layer_scale: float | None = None
    act: str = "gelu"
    eps: float = 1e-6
    pool: Literal["token", "avg", "map"] = "token"
    fc_norm: bool = False

    @property
    def prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return int(self.class_token) + self.registers

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of `PlainTransformer` and its subclasses."""
        embed = {
            "cls_token": self.class_token,
            "reg_token": self.registers,
            "pos_embed": True,
            "patch_embed": True,
            "norm_pre": self.pre_norm,
        }
        head = ("fc_norm" if self.fc_norm else "norm", *(["attn_pool"] if self.pool == "map" else []))
        owners = {
            "embed": tuple(name for name, present in embed.items() if present),
            **{f"blocks.{i}": (f"blocks.{i}",) for i in range(self.depth)},
        }
        tokens = (Stage(n, self.dim, self.patch, "tokens", owned, self.prefix) for n, owned in owners.items())
        return (*tokens, Stage("head", self.dim, 1, "vector", head))


def attend(
    q: Float[Array, "b heads n d"],
    k: Float[Array, "b heads m d"],
    v: Float[Array, "b heads m d"],
    bias: Float[Array, "*#bias"] | None = None,
) -> Float[Array, "b heads n d"]:
    """Return softmax(q k' / sqrt(d) + bias) v, with the softmax in float32.

    Args:
        q: queries.
        k: keys.
        v: values.
        bias: added to the scores; it broadcasts to (b, heads, n, m).
    """
    # Normalise the result instead of the weights, which are m / d times as many: on CPU this takes two fifths of the
    # time of `jax.nn.dot_product_attention`. The maximum only prevents overflow, so it needs no gradient.
    q = q * q.dtype.type(1 / math.sqrt(q.shape[-1]))
    scores = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    mixed = jnp.matmul(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (mixed / weights.sum(-1, keepdims=True)).astype(v.dtype)


def split_heads(x: Float[Array, "b n c"], heads: int) -> Float[Array, "b heads n d"]:
    """Split the c = heads * d channels of tokens into attention heads."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join_heads(x: Float[Array, "b heads n d"]) -> Float[Array, "b n c"]:
    """Concatenate attention heads to c = heads * d channels: the inverse of `split_heads`."""
    x = x.swapaxes(1, 2)
    return x.reshape(*x.shape[:2], -1)


class Attention(nnx.Module):
    """Multi-head self-attention (arXiv:1706.03762, section 3.2) with one layer for queries, keys and values."""

    def __init__(self, dim: int, heads: int, *, rngs: nnx.Rngs):
        self.qkv = Linear(dim, 3 * dim, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs)
        self.heads = heads

    def __call__(self, x: Float[Array, "b n dim"]) -> Float[Array, "b n dim"]:
        q, k, v = (split_heads(part, self.heads) for part in jnp.split(self.qkv(x), 3, axis=-1))
        return self.proj(join_heads(attend(q, k, v)))


class Mlp(nnx.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, dim: int, hidden: int, act: str, *, rngs: nnx.Rngs):
        self.fc1 = Linear(dim, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, dim, rngs=rngs)
        self.act = act

    def __call__(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
        return self.fc2(ACTIVATIONS[self.act](self.fc1(x)))


class LayerScale(nnx.Module):
    """A factor for each channel (arXiv:2103.17239)."""

    def __init__(self, dim: int, value: float, *, rngs: nnx.Rngs):
        del rngs  # taken so that every layer is built alike
        self.gamma = nnx.Param(jnp.full((dim,), value, jnp.float32))

    def __call__(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
        return x * self.gamma[...].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Return rates that grow linearly from 0 at the first block to `last` (arXiv:1603.09382, eq. 4)."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


class Block(nnx.Module):
    """x + attention(norm(x)), then the same with the MLP."""

    def __init__(self, config: TransformerConfig, drop_path: float, *, rngs: nnx.Rngs):
        dim, eps, scale = config.dim, config.eps, config.layer_scale
        self.norm1 = LayerNorm(dim, eps=eps, rngs=rngs)
        self.attn = Attention(dim, config.heads, rngs=rngs)
        self.ls1 = None if scale is None else LayerScale(dim, scale, rngs=rngs)
        self.drop_path1 = DropPath(drop_path, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=eps, rngs=rngs)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.act, rngs=rngs)
        self.ls2 = None if scale is None else LayerScale(dim, scale, rngs=rngs)
        self.drop_path2 = DropPath(drop_path, rngs=rngs)

    def __call__(self, x: Float[Array, "b n dim"]) -> Float[Array, "b n dim"]:
        y = self.attn(self.norm1(x))
        x = x + self.drop_path1(y if self.ls1 is None else self.ls1(y))
        y = self.mlp(self.norm2(x))
        return x + self.drop_path2(y if self.ls2 is None else self.ls2(y))


class AttentionPoolLatent(nnx.Module):
    """Attention pooling: one learned query attends to all tokens, then a residual MLP (arXiv:2106.04560)."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        dim, self.heads = config.dim, config.heads
        self.latent = nnx.Param(Normal(dim**-0.5, truncated=True)(rngs.params(), (1, 1, dim)))
        self.q = Linear(dim, dim, rngs=rngs)
        self.kv = Linear(dim, 2 * dim, rngs=rngs)
        self.proj = Linear(dim, dim, rngs=rngs)
        self.norm = LayerNorm(dim, eps=config.eps, rngs=rngs)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), config.act, rngs=rngs)

    def __call__(self, x: Float[Array, "b n dim"]) -> Float[Array, "b dim"]:
        query = jnp.broadcast_to(self.q(self.latent[...].astype(x.dtype)), (x.shape[0], 1, x.shape[2]))
        key, value = jnp.split(self.kv(x), 2, axis=-1)
        y = self.proj(join_heads(attend(*(split_heads(part, self.heads) for part in (query, key, value)))))
        y = y + self.mlp(self.norm(y))
        return y[:, 0]


class PatchEmbed(nnx.Module):
    """Embeds each patch: (b, h, w, in) -> (b, h / patch, w / patch, dim)."""

    def __init__(self, in_channels: int, dim: int, patch: int, *, bias: bool = True, rngs: nnx.Rngs):
        init = Normal(1 / (patch * math.sqrt(in_channels)), truncated=True)
        self.proj = Conv(in_channels, dim, patch, patch, bias=bias, kernel_init=init, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w in_channels"]) -> Float[Array, "b _rows _columns dim"]:
        return self.proj(x)


def resample_positions(
    embedding: Float[Array, "1 n c"], old: tuple[int, int], new: tuple[int, int], prefix: int
) -> Float[Array, "1 m c"]:
    """Resample position embeddings to another grid, bicubic with antialiasing, in float32.

    Args:
        embedding: (1, prefix + rows * columns, c).
        old: (rows, columns) of the embedding.
        new: (rows, columns) of the result.
        prefix: number of leading tokens, whose embeddings stay unchanged.
    """
    if old == new:
        return embedding
    channels = embedding.shape[-1]
    grid = embedding[:, prefix:].reshape(1, *old, channels)
    grid = jax.image.resize(grid, (1, *new, channels), "cubic", antialias=True)
    return jnp.concatenate([embedding[:, :prefix], grid.reshape(1, -1, channels)], axis=1)


class PlainTransformer(Backbone):
    """The plain vision transformer. Stages `embed` and `blocks.i` give tokens, `head` the vector for the classifier.

    Args:
        config: sizes and choices of the architecture.
        block: builds a block from (config, rate of stochastic depth, rngs=).
        drop_path_rate: rate of stochastic depth of the last block.
        in_channels: channels of the images.
        rngs: random keys of the parameters.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        block: Callable[..., nnx.Module] = Block,
        drop_path_rate: float = 0.0,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        self.config, dim, eps = config, config.dim, config.eps

        def tokens(count: int, std: float) -> nnx.Param[Array]:
            return nnx.Param(Normal(std, truncated=True)(rngs.params(), (1, count, dim)))

        self.patch_embed = PatchEmbed(in_channels, dim, config.patch, bias=not config.pre_norm, rngs=rngs)
        self.cls_token = tokens(1, 1e-6) if config.class_token else None
        self.reg_token = tokens(config.registers, 1e-6) if config.registers else None
        self.pos_embed = tokens(config.grid**2 + (config.prefix if config.embed_prefix else 0), 0.02)
        self.norm_pre = LayerNorm(dim, eps=eps, rngs=rngs) if config.pre_norm else None
        rates = drop_path_rates(drop_path_rate, config.depth)
        self.blocks = nnx.List([block(config, rate, rngs=rngs) for rate in rates])
        self.norm = None if config.fc_norm else LayerNorm(dim, eps=eps, rngs=rngs)
        self.fc_norm = LayerNorm(dim, eps=eps, rngs=rngs) if config.fc_norm else None
        self.attn_pool = AttentionPoolLatent(config, rngs=rngs) if config.pool == "map" else None

    def embed(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n dim"]:
        """Return the tokens of images, with position embeddings added."""
        x = self.patch_embed(x)
        batch, rows, columns, dim = x.shape
        config, x = self.config, x.reshape(batch, rows * columns, dim)
        prefix = config.prefix if config.embed_prefix else 0
        positions = resample_positions(self.pos_embed[...], (config.grid, config.grid), (rows, columns), prefix)
        positions = positions.astype(x.dtype)
        leading = [token[...].astype(x.dtype) for token in (self.cls_token, self.reg_token) if token is not None]
        if leading:
            first = jnp.concatenate(leading, axis=1)
            if prefix:
                first, positions = first + positions[:, :prefix], positions[:, prefix:]
            first = jnp.broadcast_to(first, (batch, *first.shape[1:]))
            x = jnp.concatenate([first, x + positions], axis=1)
        else:
            x = x + positions
        return x if self.norm_pre is None else self.norm_pre(x)

    def pooled(self, x: Float[Array, "b n dim"]) -> Float[Array, "b dim"]:
        """Return the vector that the classifier reads."""
        if self.config.pool == "token":  # norms act on each token separately, so the others can be dropped first
            x = x[:, :1]
        x = x if self.norm is None else self.norm(x)
        patches = x[:, self.config.prefix :]
        if self.attn_pool is not None:
            x = self.attn_pool(patches)
        else:
            x = x[:, 0] if self.config.pool == "token" else jnp.mean(patches, axis=1)
        return x if self.fc_norm is None else self.fc_norm(x)

    def stages(self) -> Mapping[str, StageFunction]:
        blocks = {f"blocks.{i}": block for i, block in enumerate(self.blocks)}
        return {"embed": self.embed, **blocks, "head": self.pooled}


def resample_checkpoint(
    embedding: Shaped[np.ndarray, "1 n c"], shape: tuple[int, ...], *, prefix: int
) -> Float[np.ndarray, "1 m c"]:
    """Resample the position embeddings of a checkpoint from one square grid to another.

    Args:
        embedding: (1, prefix + old side², c).
        shape: (1, prefix + new side², c), as the model has it.
        prefix: number of leading tokens.
    Raises:
        WeightsError: if a number of embeddings is not `prefix` plus a square.
    """
    sides = [math.isqrt(n - prefix) for n in (embedding.shape[1], shape[1])]
    if [prefix + side**2 for side in sides] != [embedding.shape[1], shape[1]]:
        raise WeightsError(
            f"{embedding.shape[1]} position embeddings cannot become {shape[1]}: both must be {prefix} leading tokens "
            "and a square grid."
        )
    old, new = ((side, side) for side in sides)
    return np.asarray(resample_positions(jnp.asarray(embedding), old, new, prefix))


def plain_spec(
    config: TransformerConfig,
    weights: WeightSpec,
    *,
    build: Callable[..., nnx.Module] = PlainTransformer,
    **fields: Any,
) -> BackboneSpec:
    """Return the spec of a plain transformer.

    Args:
        config: sizes and choices of the architecture.
        weights: default weights; name, labels and preprocessing come from here.
        build: the network.
        **fields: further fields of the spec; they override those derived here.
    """
    prefix = config.prefix if config.embed_prefix else 0
    given: dict[str, Any] = {
        "build": partial(build, config),
        "stages": config.stages(),
        "classifier": ClassifierLayout("head", labels=weights.labels),
        "preprocess": weights.preprocess,
        "pretrained": weights.tag,
        "options": {"drop_path_rate": Range(0.0)},
        "min_size": config.patch,
        "size_multiple": config.patch,
        "resampled": {"pos_embed": partial(resample_checkpoint, prefix=prefix)},
    }
    return BackboneSpec(name=weights.backbone, **(given | fields))

"""Key layouts of other libraries for the plain transformer."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.registry.spec import Stored

Layout = dict[str, str | Stored]


def block_layout(depth: int, there: str, names: Mapping[str, str], qkv: tuple[str, str, str]) -> Layout:
    """Return where another key layout stores the tensors of the blocks.

    Args:
        depth: number of blocks.
        there: path of the list of blocks in the other layout.
        names: path inside our block -> path inside theirs.
        qkv: their paths of the layers for queries, keys and values, which are one layer here.
    """
    layout: Layout = {}
    for i in range(depth):
        layout |= {f"blocks.{i}.{ours}": f"{there}.{i}.{theirs}" for ours, theirs in names.items()}
        for leaf in ("weight", "bias"):
            layout[f"blocks.{i}.attn.qkv.{leaf}"] = Stored(tuple(f"{there}.{i}.{path}.{leaf}" for path in qkv))
    return layout


def transformers_layout(depth: int, names: Mapping[str, str] | None = None) -> Layout:
    """Return the key layout of Hugging Face transformers' ViT, without the prefix `vit`.

    Args:
        depth: number of blocks.
        names: path inside our block -> path inside theirs, for models that differ from ViT there.
    """
    vit = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    qkv = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
    return {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        **block_layout(depth, "encoder.layer", {"attn.proj": "attention.output.dense", **(names or vit)}, qkv),
        "norm": "layernorm",
    }

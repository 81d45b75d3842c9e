"""The stages a pyramid is made of, for every backbone, and the necks."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_kit
import pytest
import seeded
from flax import nnx

from zoo.dense.necks import FPN, SimplePyramid
from zoo.dense.pyramid import StageMaps, pyramid_stages, tokens_to_map
from zoo.dense.resize import nearest_rows, resize_nearest
from zoo.errors import ConfigError
from zoo.layers import ConvTranspose, GroupNorm
from zoo.models.backbone import feature_shapes
from zoo.registry.spec import BackboneSpec, ClassifierLayout, Stage
from zoo.weights.mapping import slots

GOLDEN = json.loads((Path(__file__).parent / "golden" / "fcos.json").read_text())
pytestmark = pytest.mark.usefixtures("strict_dtypes")


def seeded_layer(module: nnx.Module, name: str) -> nnx.Module:
    """A layer with the tensors called `name.*`."""
    nodes = dict(nnx.iter_graph(module))
    for slot in slots(module):
        tensor = seeded.tensor(f"{name}.{slot.name}", slot.native_shape)
        nodes[slot.path].set_value(jnp.asarray(slot.read(tensor)))
    return module


# Layers ------------------------------------------------------------------------------------------------------------


def test_layers_of_dense_tasks_equal_torchs() -> None:
    x = jnp.asarray(seeded.images(2, 5, 7, 8))
    norm = seeded_layer(GroupNorm(4, 8, rngs=nnx.Rngs(0)), "norm")
    grown = seeded_layer(ConvTranspose(8, 6, 2, rngs=nnx.Rngs(0)), "grown")
    assert seeded.error(np.asarray(norm(x)), GOLDEN["layers"]["group_norm"]) < 1e-4  # type: ignore[operator]
    assert seeded.error(np.asarray(grown(x)), GOLDEN["layers"]["conv_transpose"]) < 1e-4  # type: ignore[operator]


def test_group_norm_keeps_its_statistics_in_float32_and_refuses_what_does_not_divide() -> None:
    layer = GroupNorm(2, 4, rngs=nnx.Rngs(0))
    x = 300 + jnp.asarray(seeded.images(1, 4, 4, 4), jnp.bfloat16)
    assert layer(x).dtype == jnp.bfloat16
    wanted = layer(x.astype(jnp.float32))
    np.testing.assert_allclose(layer(x).astype(jnp.float32), wanted, atol=0.02)
    with pytest.raises(ConfigError, match="6 channels cannot be divided into 4 groups"):
        GroupNorm(4, 6, rngs=nnx.Rngs(0))


def test_the_nearest_row_is_torchs() -> None:
    for inputs, wanted in enumerate(GOLDEN["layers"]["nearest"], 1):
        rows = [nearest_rows(inputs, outputs) for outputs in range(inputs, 3 * inputs + 2)]
        assert zlib.crc32(np.concatenate(rows).astype(np.int32).tobytes()) == wanted, inputs


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (5, 8), (9, 12), (7, 11), (3, 4)])
def test_a_map_takes_any_size(size: tuple[int, int]) -> None:
    x = jnp.asarray(seeded.images(2, 3, 4, 5))
    wanted = x[:, nearest_rows(3, size[0])][:, :, nearest_rows(4, size[1])]
    assert np.array_equal(resize_nearest(x, size), wanted)


# Which stages ------------------------------------------------------------------------------------------------------


def spec_of(*stages: Stage) -> BackboneSpec:
    return BackboneSpec("net", "Net", SimpleNamespace, stages, ClassifierLayout("fc"))


@pytest.mark.parametrize("name", sorted(parity_kit.backbones()))
def test_every_backbone_gives_a_pyramid_or_says_what_is_missing(name: str) -> None:
    spec = parity_kit.backbones()[name]
    kinds = {stage.kind for stage in spec.stages}
    coarsest = max((stage.stride for stage in spec.stages if stage.kind == "map"), default=0)
    if coarsest < 8 and "tokens" not in kinds:
        with pytest.raises(ConfigError, match=f"{name} cannot feed a feature pyramid.*strides of its maps are 1, 2, 4"):
            pyramid_stages(spec)
        return
    chosen = pyramid_stages(spec)
    if "map" not in kinds:
        assert [stage.kind for stage in chosen] == ["tokens"]
        assert chosen[0] is [stage for stage in spec.stages if stage.kind == "tokens"][-1]
        return
    strides = [stage.stride for stage in chosen]
    assert strides == sorted(set(strides)) and strides[0] >= 8
    assert {stride for stride in (8, 16, 32) if stride <= coarsest} == set(strides), "every net so far has these"
    for stage in chosen:
        after = spec.stages[spec.stages.index(stage) + 1 :]
        assert stage.kind == "map"
        assert not [later for later in after if later.kind == "map" and later.stride == stage.stride]


@pytest.mark.parametrize("name", parity_kit.each_family(large=True))
def test_the_pyramid_of_a_backbone_has_the_shapes_its_stages_say(name: str) -> None:
    spec = parity_kit.backbones()[name]
    try:
        chosen = pyramid_stages(spec)
    except ConfigError:
        return
    size = seeded.image_size(spec.preprocess.size[0], max(96, spec.min_size), spec.size_multiple)
    multiple = chosen[0].stride if chosen[0].kind == "tokens" else 1
    size = tuple(-(-side // multiple) * multiple for side in size)
    shapes = feature_shapes(spec, size, [stage.name for stage in chosen])
    neck: FPN | SimplePyramid
    if chosen[0].kind == "tokens":
        stage, shape = chosen[0], shapes[chosen[0].name]
        maps = [jax.eval_shape(lambda x: tokens_to_map(x, stage, size), shape)]
        neck = nnx.eval_shape(lambda: SimplePyramid(stage.channels, stage.stride, width=16, rngs=nnx.Rngs(0)))
    else:
        maps = [shapes[stage.name] for stage in chosen]
        channels, strides = [stage.channels for stage in chosen], [stage.stride for stage in chosen]
        extra = 5 - len(chosen)
        neck = nnx.eval_shape(lambda: FPN(channels, strides, 16, extra=extra, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(neck)
    levels = jax.eval_shape(lambda state, maps: nnx.merge(graphdef, state)(maps), state, maps)
    assert len(levels) == len(neck.strides) == 5
    assert all(b == 2 * a for a, b in zip(neck.strides[:-1], neck.strides[1:], strict=True))
    for level, stride in zip(levels, neck.strides, strict=True):
        assert level.shape[3] == neck.width == 16
        # Nets that do not pad lose up to a few positions at the border.
        for have, side in zip(level.shape[1:3], size, strict=True):
            assert side / stride - 4 <= have <= -(-side // stride)


def test_dilated_and_unusual_nets_are_taken_at_their_declared_strides() -> None:
    dilated = spec_of(
        Stage("a", 8, 4), Stage("b", 8, 8), Stage("c", 8, 8), Stage("d", 8, 8), Stage("head", 9, 1, "vector")
    )
    assert [stage.name for stage in pyramid_stages(dilated)] == ["d"]
    odd = spec_of(Stage("a", 8, 6), Stage("b", 8, 12), Stage("c", 8, 24))
    assert [stage.stride for stage in pyramid_stages(odd)] == [12, 24]
    hybrid = spec_of(Stage("stem", 8, 4), Stage("tokens", 8, 16, "tokens", prefix=1), Stage("head", 8, 1, "vector"))
    assert [stage.name for stage in pyramid_stages(hybrid)] == ["tokens"]
    fine = spec_of(Stage("a", 8, 2), Stage("b", 8, 4))
    assert [stage.stride for stage in pyramid_stages(fine, (2, 4))] == [2, 4]
    with pytest.raises(ConfigError, match="strides of its maps are none"):
        pyramid_stages(spec_of(Stage("head", 8, 1, "vector")))


def test_tokens_become_a_map_without_those_of_no_place() -> None:
    stage = Stage("tokens", 3, 14, "tokens", prefix=2)
    tokens = jnp.arange(2 * 8 * 3, dtype=jnp.float32).reshape(2, 8, 3)
    found = tokens_to_map(tokens, stage, (28, 42))
    assert found.shape == (2, 2, 3, 3) and np.array_equal(found[0, 1, 0], tokens[0, 2 + 3])
    with pytest.raises(ConfigError, match="6 patch tokens after its 2 leading tokens, but images of 28x28 have 2x2"):
        tokens_to_map(tokens, stage, (28, 28))


@pytest.mark.parametrize(
    ("name", "short"), [("squeezenet1_0", True), ("inception_v3", True), ("mobilenetv2_035", False), ("vgg11", False)]
)
def test_maps_have_all_the_positions_that_their_strides_have_room_for(name: str, short: bool) -> None:
    """What convolutions without padding lose along the borders is given back, on both sides, for images of any size."""
    spec = parity_kit.backbones()[name]
    stages = pyramid_stages(spec, (4, 8, 16, 32))
    taps = [stage.name for stage in stages]
    maps = StageMaps.of(stages, (192, 256), feature_shapes(spec, (192, 256), taps))
    assert short == any(map(any, maps.lost))
    for size in ((192, 256), (256, 192), (320, 320)):
        shapes = feature_shapes(spec, size, taps)
        features = {
            name: jnp.asarray(seeded.images(1, *shape.shape[1:3], 1)).astype(jnp.float32)
            for name, shape in shapes.items()
        }
        found = maps(maps.reduce(features))
        for stage, x in zip(stages, found, strict=True):
            assert x.shape[1:3] == (size[0] // stage.stride, size[1] // stage.stride)
            given = features[stage.name]
            before = [-(-(n - m) // 2) for n, m in zip(x.shape[1:3], given.shape[1:3], strict=True)]
            ends = [a + n for a, n in zip(before, given.shape[1:3], strict=True)]
            assert np.array_equal(x[:, before[0] : ends[0], before[1] : ends[1]], given)
            assert np.array_equal(x[:, 0, 0], given[:, 0, 0]) and np.array_equal(x[:, -1, -1], given[:, -1, -1])


# Necks -------------------------------------------------------------------------------------------------------------


def maps_of(*shapes: tuple[int, int, int]) -> list[jax.Array]:
    return [jnp.asarray(seeded.images(2, *shape)) for shape in shapes]


def test_a_pyramid_of_odd_maps() -> None:
    """Sizes of Inception v3 at 299 pixels; each level has the size of its map."""
    neck = FPN([3, 4, 5], [8, 16, 32], 8, rngs=nnx.Rngs(0))
    levels = neck(maps_of((35, 35, 3), (17, 17, 4), (8, 8, 5)))
    assert [level.shape for level in levels] == [(2, n, n, 8) for n in (35, 17, 8, 4, 2)]
    assert neck.strides == (8, 16, 32, 64, 128)
    top = neck.layer_blocks[2](neck.inner_blocks[2](maps_of((8, 8, 5))[0]))
    np.testing.assert_allclose(levels[2], top, atol=1e-5)


def test_extra_levels_come_from_the_pyramid_the_map_or_by_leaving_out() -> None:
    maps = maps_of((8, 8, 4), (4, 4, 6))
    for source, inputs in (("pyramid", 8), ("map", 6)):
        neck = FPN([4, 6], [8, 16], 8, extra=3, source=source, rngs=nnx.Rngs(0))  # type: ignore[arg-type]
        assert neck.strides == (8, 16, 32, 64, 128)
        assert {"extra_blocks.p5", "extra_blocks.p6", "extra_blocks.p7"} == {
            slot.name.rpartition(".")[0] for slot in slots(neck) if slot.name.startswith("extra")
        }
        assert neck.extra_blocks.p5.kernel.shape[2] == inputs  # type: ignore[union-attr]
        levels = neck(maps)
        p5 = neck.extra_blocks.p5(levels[1] if source == "pyramid" else maps[1])  # type: ignore[union-attr]
        np.testing.assert_allclose(levels[2], p5, atol=1e-5)
        np.testing.assert_allclose(levels[3], neck.extra_blocks.p6(jax.nn.relu(p5)), atol=1e-5)  # type: ignore[union-attr]
    neck = FPN([4, 6], [8, 16], 8, extra=2, source="pool", rngs=nnx.Rngs(0))
    levels = neck(maps)
    assert np.array_equal(levels[2], levels[1][:, ::2, ::2]) and np.array_equal(levels[3], levels[1][:, ::4, ::4])
    assert not [slot for slot in slots(neck) if "extra" in slot.name]
    assert len(FPN([4], [16], 8, extra=0, rngs=nnx.Rngs(0))(maps[:1])) == 1


def test_a_pyramid_needs_a_stride_for_each_map() -> None:
    with pytest.raises(ConfigError, match="2 maps and 1 strides"):
        FPN([4, 6], [8], 8, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("stride", "strides", "sizes"),
    [
        (16, (8, 16, 32, 64, 128), (12, 6, 3, 2, 1)),
        (14, (7, 14, 28, 56, 112), (12, 6, 3, 2, 1)),
        (32, (8, 16, 32, 64, 128), (24, 12, 6, 3, 2)),
        (8, (8, 16, 32, 64, 128), (6, 3, 1, 1, 1)),
    ],
)
def test_a_simple_pyramid_of_tokens_of_any_size(stride: int, strides: Any, sizes: Any) -> None:
    neck = SimplePyramid(8, stride, width=16, rngs=nnx.Rngs(0))
    levels = neck(maps_of((6, 6, 8)))
    assert neck.strides == strides
    assert [level.shape for level in levels] == [(2, n, n, 16) for n in sizes]
    assert all(np.isfinite(level).all() and level.std() > 0 for level in levels)


def test_a_simple_pyramid_is_built_as_the_published_one() -> None:
    """Names and shapes of detectron2's plain backbone at 16 pixels a token, with the levels of strides 4 to 32."""
    neck = SimplePyramid(8, 16, (4, 8, 16, 32), 6, extra=1, source="pool", rngs=nnx.Rngs(0))
    found = {slot.name: slot.native_shape for slot in slots(neck)}
    finest = {"simfp_2.0.weight": (8, 4, 2, 2), "simfp_2.1.weight": (4,), "simfp_2.3.weight": (4, 2, 2, 2)}
    level = {"simfp_2.4.weight": (6, 2, 1, 1), "simfp_2.4.norm.weight": (6,), "simfp_2.5.weight": (6, 6, 3, 3)}
    wanted = finest | level | {"simfp_3.1.weight": (6, 4, 1, 1), "simfp_4.0.weight": (6, 8, 1, 1)}
    wanted |= {"simfp_5.1.weight": (6, 8, 1, 1), "simfp_5.2.norm.bias": (6,)}
    assert {name: found.get(name) for name in wanted} == wanted
    assert "simfp_4.0.bias" not in found and neck.strides == (4, 8, 16, 32, 64)
    with pytest.raises(ConfigError, match="do not give different levels, finest first, on tokens of 16 pixels"):
        SimplePyramid(8, 16, (8, 9), 6, rngs=nnx.Rngs(0))


def test_necks_follow_the_dtype_of_their_maps() -> None:
    maps = [x.astype(jnp.bfloat16) for x in maps_of((8, 8, 8))]
    for neck in (FPN([8], [16], 8, rngs=nnx.Rngs(0)), SimplePyramid(8, 16, width=8, rngs=nnx.Rngs(0))):
        assert {level.dtype for level in neck(maps)} == {jnp.dtype(jnp.bfloat16)}

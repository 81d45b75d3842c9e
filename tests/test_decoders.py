"""Decoders of the segmenter against torchvision and segmentation_models.pytorch, and on every kind of backbone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_kit
import pytest
import seeded
from flax import nnx
from jax import Array
from safetensors.numpy import save_file

import zoo
from zoo.adapters.segmenter import FINER_SIDE, SIDE, Segmenter
from zoo.adapters.segmenter.decoders import (
    DECODERS,
    SegmentationHead,
    auxiliary_stage,
    backbone_options,
    stages_for,
    taps_for,
)
from zoo.adapters.segmenter.deeplab import FCN
from zoo.adapters.segmenter.parts import Maps
from zoo.adapters.segmenter.published import MODELS
from zoo.adapters.segmenter.unet import UNet
from zoo.dense.resize import bilinear_weights, pool_to, resize_bilinear
from zoo.errors import ConfigError, WeightsError
from zoo.labels import names as label_names
from zoo.layers.initialisers import shapes_only
from zoo.models.adapter import HeadInputs, configure
from zoo.models.backbone import abstract, feature_shapes
from zoo.models.model import Model
from zoo.registry.spec import OUTPUT_STRIDE, BackboneSpec
from zoo.weights.mapping import locate, slots

GOLDEN = json.loads((Path(__file__).parent / "golden" / "segmentation.json").read_text())
TOLERANCE = 1e-4
NAMED = {model.name: model for model in MODELS}
COMPARED = [name for name in NAMED if name in GOLDEN]
PUBLISHED = 21
pytestmark = pytest.mark.usefixtures("strict_dtypes")


# Maps at other sizes -----------------------------------------------------------------------------------------------


def test_maps_are_resized_and_pooled_as_torch_does() -> None:
    x, wanted = jnp.asarray(seeded.images(2, 5, 7, 4)), GOLDEN["resizing"]
    for aligned in (False, True):
        for size, golden in zip(wanted["sizes"], wanted["aligned" if aligned else "bilinear"], strict=True):
            found = resize_bilinear(x, tuple(size), align_corners=aligned)
            assert seeded.error(np.asarray(found), golden) < 1e-5, (size, aligned)
    for n, golden in zip((1, 2, 3, 6), wanted["pooled"], strict=True):
        assert seeded.error(np.asarray(pool_to(x, (n, n))), golden) < 1e-5, n
    assert resize_bilinear(x.astype(jnp.bfloat16), (10, 14)).dtype == jnp.bfloat16


def test_the_gradient_of_resizing_is_that_of_the_matrix_product() -> None:
    x, g = jnp.asarray(seeded.images(2, 5, 7, 4)), jnp.asarray(seeded.images(2, 13, 28, 4))
    for aligned in (False, True):
        rows, columns = (bilinear_weights(a, b, aligned) for a, b in ((5, 13), (7, 28)))
        wanted = np.einsum("ph,qw,bpqc->bhwc", rows, columns, np.asarray(g))
        (found,) = jax.vjp(lambda x, aligned=aligned: resize_bilinear(x, (13, 28), align_corners=aligned), x)[1](g)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


# References --------------------------------------------------------------------------------------------------------


@cache
def shapes_of(name: str, classes: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything in a published file for so many classes."""
    named = NAMED[name]
    options = {key: value for key, value in named.config.items() if key != OUTPUT_STRIDE}
    adapter = configure(Segmenter, tuple(map(str, range(classes))), options)
    native, size = parity_kit.backbones()[named.backbone], (64, 64)
    spec = native.built_with(named.config)
    build = {key: value for key, value in named.config.items() if key in native.options}
    shapes = feature_shapes(native, size, adapter.taps(spec), **build)
    parts = {
        "backbone": abstract(spec),
        "head": nnx.eval_shape(lambda: adapter.build(HeadInputs(spec, shapes, size), rngs=nnx.Rngs(0))),
    }
    (layout,) = (build() for build in named.layouts.values())
    return {
        locate(f"{part}.{slot.name}", layout).names[0]: slot.native_shape
        for part, module in parts.items()
        for slot in slots(module)
    }


@cache
def tensors(name: str) -> dict[str, np.ndarray]:
    """A checkpoint of name-seeded tensors."""
    return seeded.tensors(shapes_of(name, GOLDEN["classes"]), GOLDEN[name]["scales"])


@partial(jax.jit, static_argnums=0, compiler_options=parity_kit.UNOPTIMISED)
def run(graphdef: nnx.GraphDef[Model], state: nnx.State, x: Array) -> dict[str, Any]:
    found: dict[str, Any] = nnx.merge(graphdef, state)(x)
    return found


@pytest.mark.parametrize("name", COMPARED)
def test_a_published_checkpoint_gives_the_references_outputs(name: str, tmp_path: Path) -> None:
    """Read from a file, with every tensor in its place; at the decoder's own stride, and of torchvision's at the size
    of the image too."""
    wanted = GOLDEN[name]
    save_file(tensors(name), tmp_path / "model.safetensors")
    model = zoo.create(name, weights=str(tmp_path / "model.safetensors"), num_classes=GOLDEN["classes"])
    report = model.card.notes[-1]
    assert f"{len(tensors(name))} tensors loaded" in report and "re-initialised" not in report
    found = run(*nnx.split(model), jnp.asarray(seeded.images(2, *wanted["size"])))
    maps = {"logits": found["logits"]} | ({"aux": found["aux"][0]} if found["aux"] else {})
    if found["aux"]:
        size = tuple(wanted["size"])
        maps |= {"image out": resize_bilinear(maps["logits"], size), "image aux": resize_bilinear(maps["aux"], size)}
    errors = {key: seeded.error(np.asarray(array), wanted["outputs"][key]) for key, array in maps.items()}
    assert {key: error for key, error in errors.items() if error >= TOLERANCE} == {}


@pytest.mark.parametrize("name", COMPARED)
def test_every_key_of_the_references_checkpoint_has_its_place(name: str) -> None:
    for classes, key in ((GOLDEN["classes"], "keys"), (PUBLISHED, "published_keys")):
        assert seeded.digest(shapes_of(name, classes)) == GOLDEN[name][key]
    assert not NAMED[name].labels or len(label_names(NAMED[name].labels)) == PUBLISHED


def test_other_classes_keep_all_but_the_classifiers(tmp_path: Path) -> None:
    """And a file in which something is missing or too much is refused."""
    name, file = "fcn_resnet50", tmp_path / "model.safetensors"
    own = {
        there: np.zeros((PUBLISHED, *array.shape[1:]), np.float32) if there.split(".")[1] == "4" else array
        for there, array in tensors(name).items()
    }
    save_file(own, file)
    model = zoo.create(name, weights=str(file), labels=("road", "sky"))
    assert "4 re-initialised (the model has other classes)" in model.card.notes[-1]
    assert (model.labels, model.card.options[OUTPUT_STRIDE]) == (("road", "sky"), 8)
    kept = model.head.decoder[0].kernel.get_value()
    assert np.array_equal(kept, own["classifier.0.weight"].transpose(2, 3, 1, 0))
    del own["classifier.1.bias"]
    save_file(own | {"classifier.9.weight": np.zeros(2, np.float32)}, file)
    with pytest.raises(WeightsError, match=r"classifier\.1\.bias is missing; classifier\.9\.weight has no place"):
        zoo.create(name, weights=str(file), labels=("road", "sky"))


# Any backbone ------------------------------------------------------------------------------------------------------


SQUEEZED = "squeezenet1_1"


Shapes = Mapping[str, jax.ShapeDtypeStruct]


def build_head(
    spec: BackboneSpec, decoder: str, auxiliary: bool, size: tuple[int, int], shapes: Shapes
) -> SegmentationHead:
    inputs = HeadInputs(spec, shapes, size)
    return SegmentationHead(decoder, inputs, 3, width=32, auxiliary=auxiliary, rngs=nnx.Rngs(0))


def serving(native: BackboneSpec) -> dict[str, tuple[BackboneSpec, tuple[str, ...]]]:
    """Decoder -> (the backbone as it wants it, what it reads), where the backbone can serve; the others say why not."""
    found = {}
    for decoder, row in DECODERS.items():
        spec = native.built_with(backbone_options(native, decoder))
        try:
            found[decoder] = spec, taps_for(spec, decoder, auxiliary=bool(row.auxiliary))
        except ConfigError as error:
            assert native.name in str(error) and "hoose" in str(error)
    return found


def shapes_of_stages(native: BackboneSpec, size: tuple[int, int]) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Decoder -> what it reads of two images. Backbones are traced once for each output stride."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    able = serving(native)
    for decoder in able:
        groups.setdefault(tuple(backbone_options(native, decoder).items()), []).append(decoder)
    found = {}
    for options, decoders in groups.items():
        every = feature_shapes(native, size, sorted({tap for d in decoders for tap in able[d][1]}), **dict(options))
        for decoder in decoders:
            found[decoder] = {
                tap: jax.ShapeDtypeStruct((2, *every[tap].shape[1:]), every[tap].dtype) for tap in able[decoder][1]
            }
    return found


@pytest.mark.parametrize("name", parity_kit.each_family(large=True))
def test_every_decoder_fits_every_family_or_says_why_not(name: str) -> None:
    """By shapes alone: a logit for each class and place, at the stride that the decoder has where maps allow it."""
    native = parity_kit.backbones()[name]
    size = seeded.image_size(native.preprocess.size[0], max(64, native.min_size), native.size_multiple)
    if tokens := [stage for stage in native.stages if stage.kind == "tokens"]:
        size = tuple(-(-side // tokens[-1].stride) * tokens[-1].stride for side in size)
    able = serving(native)
    dilating = {decoder for decoder, row in DECODERS.items() if row.dilated}
    refused = set(DECODERS) - set(able)
    assert refused == (set() if "dilatable" in native.capabilities else dilating)
    for decoder, shapes in shapes_of_stages(native, size).items():
        spec, _ = able[decoder]
        # A pyramid of one level has no intermediate map.
        auxiliary = bool(DECODERS[decoder].auxiliary) and (decoder == "unet" or len(shapes) > 1 or bool(tokens))

        def both(shapes: Any, spec: Any = spec, decoder: str = decoder, auxiliary: bool = auxiliary) -> Any:
            head = build_head(spec, decoder, auxiliary, size, shapes)
            return head(head.reduce(shapes))

        with shapes_only():
            found = jax.eval_shape(both, shapes)
        images, rows, columns, classes = found["logits"].shape
        assert (images, classes) == (2, 3) and found["logits"].dtype == jnp.float32
        finest = stages_for(spec, decoder)[0]
        if finest.kind == "map":
            times = 2 ** int(math.log2(finest.stride)) if decoder == "unet" else 1
            given = shapes[finest.name].shape[1:3]
            whole = [max(side // finest.stride, n) for side, n in zip(size, given, strict=True)]
            assert [rows, columns] == [n * times for n in whole]
        assert bool(found["aux"]) == auxiliary
        assert all((one.shape[0], one.shape[3]) == (2, 3) for one in found["aux"])


def test_the_families_are_those_that_they_should_be() -> None:
    assert {parity_kit.backbones()[name].family for name in parity_kit.one_per_family()} >= parity_kit.NEEDED


@pytest.mark.parametrize(
    "decoder",
    [
        "unet",
        "fpn",
        "deeplabv3plus",
        *(pytest.param(d, marks=pytest.mark.exhaustive) for d in ("upernet", "mlp", "linear")),
    ],
)
def test_decoders_learn_at_odd_sizes(decoder: str) -> None:
    """Really computed: logits are finite and differ by image, and every parameter has a gradient; of one decoder in a
    second frame."""
    able = "mobilenetv2_035" if DECODERS[decoder].dilated else SQUEEZED
    native = parity_kit.backbones()[able]
    options = backbone_options(native, decoder)
    spec = native.built_with(options)
    auxiliary = bool(DECODERS[decoder].auxiliary)
    taps = taps_for(spec, decoder, auxiliary=auxiliary)
    head = build_head(spec, decoder, auxiliary, (69, 90), feature_shapes(spec, (69, 90), taps, **options))
    graphdef, params, rest = nnx.split(head, nnx.Param, ...)

    @partial(jax.jit, compiler_options=parity_kit.UNOPTIMISED)
    @partial(jax.grad, has_aux=True)
    def step(params: nnx.State, rest: nnx.State, features: Any) -> Any:
        head = nnx.merge(graphdef, params, rest, copy=True)
        found = head(head.reduce(features))
        outputs = [found["logits"], *found["aux"]]
        return sum(jnp.mean(jnp.square(one - 1)) for one in outputs), outputs

    for size in ((69, 90), (90, 69))[: 1 + (decoder == "fpn")]:
        shapes = feature_shapes(spec, size, taps, **options)
        features = {
            key: jnp.asarray(seeded.images(2, *shape.shape[1:3], shape.shape[3])) for key, shape in shapes.items()
        }
        gradients, outputs = step(params, rest, features)
        for one in outputs:
            assert np.isfinite(one).all() and float(jnp.abs(one[0] - one[1]).max()) > 1e-4
        for path, gradient in nnx.to_flat_state(gradients):
            assert np.isfinite(gradient.get_value()).all() and np.abs(gradient.get_value()).max() > 0, path


def test_group_norms_and_widths_are_the_ones_asked_for() -> None:
    spec = parity_kit.backbones()[SQUEEZED]
    size = (64, 64)
    for decoder in (name for name, row in DECODERS.items() if not row.dilated):
        options = {"width": 24, "norm": "group", "dropout": 0.3}
        inputs = HeadInputs(spec, feature_shapes(spec, size, taps_for(spec, decoder)), size)
        build = partial(SegmentationHead, decoder, inputs, 3, **options)
        head = nnx.eval_shape(lambda build=build: build(rngs=nnx.Rngs(0)))
        kinds = {type(node).__name__ for _, node in nnx.iter_modules(head)}
        assert "GroupNorm" in kinds and "BatchNorm" not in kinds, decoder
        assert [m.rate for _, m in nnx.iter_modules(head) if isinstance(m, nnx.Dropout)] == [0.3], decoder


def test_wide_maps_of_unet_are_projected_and_their_scale_is_not_seen() -> None:
    """SqueezeNet has no norms: its fine maps hold values that drown what the decoder has found beside them."""
    narrow = UNet(Maps((32, 64), (2.0, 4.0)), 3, width=128, norm="batch", rate=0.0, rngs=nnx.Rngs(0))
    assert [len(one) for one in narrow.projections] == [0, 0]
    net = UNet(Maps((48, 96), (2.0, 4.0)), 3, width=128, norm="batch", rate=0.0, rngs=nnx.Rngs(0))
    assert [one[0].kernel.shape[-2:] for one in net.projections] == [(48, 16), (96, 32)]
    net.train()
    graphdef, state = nnx.split(net)
    run = jax.jit(
        lambda *maps: nnx.merge(graphdef, state, copy=True)(maps).logits, compiler_options=parity_kit.UNOPTIMISED
    )
    fine, coarse = (jnp.asarray(seeded.images(2, side, side, n)) for side, n in ((16, 48), (8, 96)))
    np.testing.assert_allclose(run(fine * 1000, coarse), run(fine, coarse), atol=2e-3)
    assert float(jnp.abs(run(fine[::-1], coarse) - run(fine, coarse)).max()) > 1e-2


def test_a_decoder_of_the_last_map_reads_the_one_before_as_well() -> None:
    """The last map tells what is in an image better than where. What only a classifier follows nobody reads."""

    def names(backbone: str, decoder: str, **options: bool) -> list[str]:
        native = parity_kit.backbones()[backbone]
        spec = native.built_with(backbone_options(native, decoder))
        return [stage.name for stage in stages_for(spec, decoder, **options)]

    assert names("mobilenetv2_100", "fcn") == names("mobilenetv2_100", "deeplabv3") == ["blocks.4", "blocks.6"]
    assert names("mobilenetv2_100", "deeplabv3plus") == ["blocks.1", "blocks.4", "blocks.6"]
    assert names("mobilenetv2_100", "deeplabv3plus", skip=False) == ["blocks.1", "blocks.6"]
    assert names("mobilenetv2_100", "linear") == names("mobilenetv2_100", "fcn", skip=False) == ["blocks.6"]
    assert names("mobilenetv2_100", "fpn") == ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]
    assert names("resnet50", "fcn") == ["layer3", "layer4"] and names("resnet50", "fcn", skip=False) == ["layer4"]
    assert all(row.config["skip"] is False for row in MODELS if row.config["decoder"] in ("fcn", "deeplabv3"))


def test_both_maps_tell_and_the_finer_ones_places_are_kept() -> None:
    module = FCN(Maps((4, 6), (8.0, 16.0)), 2, width=8, norm="group", rate=0.0, rngs=nnx.Rngs(0))
    fine, coarse = jnp.asarray(seeded.images(1, 6, 8, 4)), jnp.asarray(seeded.images(1, 3, 4, 6))
    logits = module([fine, coarse]).logits
    assert logits.shape == (1, 6, 8, 2)
    moved = module([fine.at[0, 5, 7].add(9.0), coarse]).logits
    changed = np.abs(np.asarray(moved - logits)).max(-1)[0]
    assert changed[4:, 6:].min() > 2 * changed[:3, :5].max()  # all else moves by the norm alone
    assert np.abs(np.asarray(module([fine, coarse + 1.0]).logits - logits)).max() > 1e-4


# Dilation ----------------------------------------------------------------------------------------------------------


def test_the_backbone_is_dilated_where_a_decoder_wants_it(tmp_path: Path) -> None:
    labels = ("no", "yes")
    model = zoo.create("mobilenetv2_035", "segmenter", decoder="deeplabv3plus", labels=labels, pretrained=False)
    assert model.card.options[OUTPUT_STRIDE] == 16 and model.spec.stages[-1].stride == 16
    again = zoo.load(zoo.save(model, tmp_path / "model"))
    assert again.spec == model.spec and again.card.options == model.card.options
    options = {"labels": labels, "pretrained": False}
    plain = zoo.create("mobilenetv2_035", "segmenter", decoder="deeplabv3plus", output_stride=32, **options)
    assert plain.card.options[OUTPUT_STRIDE] == 32 and plain.spec.stages[-1].stride == 32
    assert zoo.create("mobilenetv2_035", "segmenter", decoder="unet", **options).card.options[OUTPUT_STRIDE] == 32
    # Dilated or not, it has a map of the coarsest kind; nets without one see smaller images.
    finer = zoo.create("squeezenet1_1", "segmenter", **options)
    sizes = [one.card.preprocess.size for one in (model, plain, finer)]
    assert sizes == [(SIDE, SIDE), (SIDE, SIDE), (FINER_SIDE, FINER_SIDE)] and SIDE > FINER_SIDE


def test_what_cannot_serve_is_refused_with_what_would() -> None:
    options = {"labels": ("no", "yes"), "pretrained": False}
    with pytest.raises(ConfigError, match=r"of squeezenet1_1 cannot. Choose a dilatable .*, such as .*resnet.*unet"):
        zoo.create("squeezenet1_1", "segmenter", decoder="deeplabv3", **options)
    with pytest.raises(ConfigError, match="linear on squeezenet1_1 has no intermediate map"):
        zoo.create("squeezenet1_1", "segmenter", decoder="linear", auxiliary=0.4, **options)
    with pytest.raises(ConfigError, match="fpn on resnet20 has no intermediate map"):  # a single level
        zoo.create("resnet20", "segmenter", decoder="fpn", auxiliary=0.4, **options)
    with pytest.raises(ConfigError, match="resnet50: output_stride is 4; accepted: 32, 16, 8"):
        zoo.create("resnet50", "segmenter", decoder="unet", output_stride=4, **options)


def test_deep_supervision_reads_the_map_before_the_last_whatever_is_dilated() -> None:
    native = parity_kit.backbones()["resnet50"]
    for stride in (8, 16, 32):
        assert auxiliary_stage(native.built_with({OUTPUT_STRIDE: stride}), "fcn").name == "layer3"
        assert [s.stride * s.dilation for s in native.built_with({OUTPUT_STRIDE: stride}).stages] == [2, 4, 8, 16, 32]

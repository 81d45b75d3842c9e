"""The painting networks: fast forms of layers against plain ones, published layouts against torch, large pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seeded
from flax import nnx
from PIL import Image

import zoo
from zoo.adapters.style import checkpoints, nets, stylize, tiles
from zoo.adapters.style.adain import levels
from zoo.errors import WeightsError
from zoo.models.adapter import HeadInputs
from zoo.models.model import Model
from zoo.registry import registry
from zoo.weights.file import write

GOLDEN: Mapping[str, Any] = json.loads((Path(__file__).parent / "golden" / "style.json").read_text())
CUT = (slice(100, 228), slice(120, 216))


def tensors(module: nnx.Module) -> dict[str, np.ndarray]:
    """Name-seeded tensors in torch's layout, for every slot of a module."""
    from zoo.weights.mapping import slots

    return seeded.tensors({slot.name: slot.native_shape for slot in slots(module)})


# Layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["nearest", "transposed"])
def test_upsampling_and_convolution_as_one(how: Any) -> None:
    """Against the enlarged map made outright: repeated and mirrored, or spread with zeros as the gradient of `SAME`."""
    x, kernel = seeded.images(2, 5, 4, 3), seeded.tensor("up.weight", (6, 3, 3, 3)).transpose(2, 3, 1, 0)
    if how == "nearest":
        large = np.pad(x.repeat(2, 1).repeat(2, 2), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        expected = sum(
            large[:, i : i + 10, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3)
        )  # fmt: skip
    else:
        expected = np.zeros((2, 11, 9, 6), np.float32)
        for row in range(5):
            for column in range(4):
                for i in range(3):
                    for j in range(3):
                        expected[:, 2 * row + i, 2 * column + j] += x[:, row, column] @ kernel[i, j]
        expected = expected[:, :10, :8]
    found = nets.doubled_conv(jnp.asarray(x), jnp.asarray(kernel), how)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_convolution_of_few_outputs_and_its_gradient() -> None:
    x, kernel = jnp.asarray(seeded.images(2, 9, 11, 4)), jnp.asarray(seeded.tensor("a.b", (5, 3, 4, 3)))
    same_as_the_library(nets.thin_conv, x, kernel)


def test_convolution_of_many_inputs_and_outputs_and_its_gradient() -> None:
    x, kernel = jnp.asarray(seeded.images(2, 9, 12, 4)), jnp.asarray(seeded.tensor("c.d", (3, 3, 4, 5)))
    same_as_the_library(nets.wide_conv, x, kernel)


def same_as_the_library(conv: Any, x: jax.Array, kernel: jax.Array) -> None:
    plain, value = nets._library, lambda f: lambda x, k: jnp.sum(jnp.square(f(x, k)))
    np.testing.assert_allclose(conv(x, kernel), plain(x, kernel), atol=1e-4)
    found = jax.grad(value(conv), argnums=(0, 1))(x, kernel)
    for one, other in zip(found, jax.grad(value(plain), argnums=(0, 1))(x, kernel), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(224, 224), (225, 301), (64, 90)])
@pytest.mark.parametrize("name", ["squeezenet1_0", "vgg11", "resnet18", "convnext_atto"])
@pytest.mark.parametrize("joined", [True, False])
def test_the_decoder_gives_the_pictures_size(joined: bool, name: str, size: tuple[int, int]) -> None:
    """On maps that halve with rounding (VGG), without padding (SqueezeNet), from stride 2 (ResNet) and from 4 on."""
    from zoo.adapters.style import Style
    from zoo.models.backbone import PIXELS, feature_shapes

    spec = registry().backbone(name)
    options = Style(joined=joined)
    taps = options.taps(spec)
    shapes = feature_shapes(spec, size, taps)
    head = nnx.eval_shape(lambda: options.build(HeadInputs(spec, shapes, size), rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(head)
    assert taps[0] == PIXELS
    found = jax.eval_shape(lambda s, f: nnx.merge(graphdef, s)(f), state, shapes)
    assert found.shape == (1, *size, 3)


# Published layouts -----------------------------------------------------------------------------------------------


def error(found: Any, golden: Mapping[str, Any]) -> float:
    """Largest deviation of the summary's elements, mean and deviation, in pixel values."""
    mine = seeded.summary(np.asarray(found))
    assert mine["shape"] == golden["shape"]
    pairs = [*zip(mine["values"], golden["values"], strict=True)]
    pairs += [(mine[key], golden[key]) for key in ("mean", "std", "projection")]
    return max(abs(a - b) for a, b in pairs)


@pytest.fixture(scope="module")
def wave(assets: Path) -> Model:
    weights = str(assets / "weights" / "squeezenet1_0_imagenet.safetensors")
    net = str(assets / "weights" / "fast_style_wave.safetensors")
    return zoo.create("squeezenet1_0", "style", weights=weights, method="fast", net=net)


@pytest.fixture(scope="module")
def contents(assets: Path) -> dict[str, np.ndarray]:
    folder = assets / "datasets" / "style_images" / "content"
    return {file.stem: np.asarray(Image.open(file).convert("RGB"))[CUT] for file in sorted(folder.glob("*.jpg"))}


def test_the_wave_paints_as_in_torch(wave: Model, contents: Mapping[str, np.ndarray]) -> None:
    assert (wave.adapter.output, wave.adapter.padding, wave.adapter.eps) == ("tanh", "same", 1e-3)  # type: ignore[attr-defined]
    assert not wave.card.new_head and wave.adapter.net == ""  # type: ignore[attr-defined]
    for name, golden in GOLDEN["wave"].items():
        assert error(stylize(wave, contents[name]).pixels[None], golden) < 1e-3


def test_the_wave_brings_pictures_closer_to_the_great_wave(
    wave: Model, contents: Mapping[str, np.ndarray], assets: Path
) -> None:
    """Gram matrices of length one. The manifest tells of 0.673 to 0.299, 0.584 to 0.338 and 0.663 to 0.391: by a third
    at least."""
    from zoo.adapters.style import losses
    from zoo.adapters.style.pictures import open_picture, resized

    stages = wave.adapter.style_stages(wave.spec)  # type: ignore[attr-defined]

    def textures(pixels: np.ndarray) -> list[np.ndarray]:
        maps = zoo.features(wave, wave.normalize(jnp.asarray(pixels[None])), stages)
        grams = [np.asarray(losses.gram(value)) for value in maps.values()]
        return [gram / np.linalg.norm(gram) for gram in grams]

    style = textures(resized(open_picture(assets / "datasets" / "style_images" / "style" / "wave.jpg").pixels, 128))

    def distance(pixels: np.ndarray) -> float:
        return float(np.mean([np.linalg.norm(a - b) for a, b in zip(textures(pixels), style, strict=True)]))

    for pixels in contents.values():
        assert distance(stylize(wave, pixels).pixels) < distance(pixels.astype(np.float32) / 255) * 2 / 3


def test_a_run_of_a_published_net_saves_and_loads(wave: Model, contents: dict[str, np.ndarray], tmp_path: Path) -> None:
    zoo.save(wave, tmp_path)
    again = zoo.load(tmp_path)
    assert again.adapter == wave.adapter
    assert (stylize(again, contents["cornell"]).pixels == stylize(wave, contents["cornell"]).pixels).all()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorchs_layout_of_a_transform_net(tmp_path: Path, prefix: str) -> None:
    net = nnx.eval_shape(lambda: nets.TransformNet(8, 2, "reflect", "nearest", "linear", 1e-5, rngs=nnx.Rngs(0)))
    found = {prefix + name: array for name, array in tensors(net).items()}
    found[f"{prefix}in1.running_mean"] = np.zeros(8, np.float32)  # of PyTorch before 0.4
    write(tmp_path / "net.safetensors", found)
    model = zoo.create("squeezenet1_0", "style", pretrained=False, method="fast", net=str(tmp_path / "net.safetensors"))
    assert (model.adapter.width, model.adapter.blocks) == (8, 2)  # type: ignore[attr-defined]
    photo = (seeded.images(1, 36, 44) * np.float32(0.2) + np.float32(0.5)).clip(0, 1)
    assert error(model.head.net(jnp.asarray(photo)), GOLDEN["transform"]) < 1e-3  # type: ignore[attr-defined]


def test_the_sequential_layout_of_a_decoder() -> None:
    """naoto0804's: it mirrors VGG19 up to relu4_1, numbered with its padding, ReLUs and upsampling."""
    from zoo.adapters.style import Style
    from zoo.models.fill import arrays_for, put

    spec = registry().backbone("vgg19")
    widths = levels(Style(), spec)
    assert widths == [[512], [256, 256, 256, 256], [128, 128], [64, 64]]
    decoder = nets.Decoder(widths, rngs=nnx.Rngs(0))
    numbers = (1, 5, 8, 11, 14, 18, 21, 25, 28)
    shapes: dict[str, tuple[int, ...]] = {}
    flat = [w for level in widths for w in level]
    for number, inputs, outputs in zip(numbers, flat, [*flat[1:], 3], strict=True):
        shapes |= {f"{number}.weight": (outputs, inputs, 3, 3), f"{number}.bias": (outputs,)}
    found = checkpoints._decoder(seeded.tensors(shapes))
    named = {name.removeprefix("decoder."): array for name, array in found.items()}
    put(decoder, arrays_for(decoder, named, "style"), 0)
    deep = jnp.asarray(seeded.images(1, 4, 5, 512))
    assert error(decoder(deep, [(8, 10), (16, 20), (32, 40)]), GOLDEN["decoder"]) < 1e-3


def test_files_that_are_no_such_net(tmp_path: Path) -> None:
    write(tmp_path / "other.safetensors", {"a.weight": np.zeros((2, 2), np.float32)})
    write(tmp_path / "few.safetensors", {f"Variable{i}": np.zeros(3, np.float32) for i in ("", "_1", "_2")})
    for file, word in (("other", "conv1.conv2d.weight"), ("few", "three for each of its layers")):
        with pytest.raises(WeightsError, match=word):
            zoo.create(
                "squeezenet1_0", "style", pretrained=False, method="fast", net=str(tmp_path / f"{file}.safetensors")
            )


# Large pictures --------------------------------------------------------------------------------------------------


def test_parts_of_a_picture_join_without_a_trace() -> None:
    content = np.random.default_rng(0).random((700, 530, 3), np.float32)
    windows = []

    def one(part: np.ndarray, window: tiles.Window) -> np.ndarray:
        windows.append(window)
        assert part.shape == (tiles.SMALLEST, tiles.SMALLEST, 3)
        spoilt = part.copy()
        spoilt[: tiles.MARGIN - 1] += 9 * (window[0].start > 0)  # what a net makes of a border is not seen
        return spoilt

    np.testing.assert_allclose(tiles.painted(content, one, tiles.SMALLEST), content, atol=1e-5)
    assert len(windows) > 1 and all(w[0].start % tiles.STRIDE == 0 for w in windows)


def test_a_large_photo_is_painted_in_parts_without_seams(wave: Model, assets: Path) -> None:
    """Parts agree with each other where they overlap, because they share the statistics of the whole."""
    net: Any = wave.head
    rng = np.random.default_rng(1)
    small = rng.random((14, 10, 3)).astype(np.float32)
    photo = np.asarray(Image.fromarray((small * 255).astype(np.uint8)).resize((400, 560), Image.Resampling.BICUBIC))
    graphdef, state = nnx.split(net.net)
    run = jax.jit(lambda s, x, g: nnx.merge(graphdef, s).run(x, g))
    given = run(state, jnp.asarray(tiles.reduced(photo.astype(np.float32) / 255, 384)[None]), None)[1]
    whole = np.clip(np.asarray(run(state, jnp.asarray(photo[None], jnp.float32) / 255, given)[0])[0], 0, 1)
    parts = stylize(wave, photo, tile=384).pixels
    # At the picture's own lower and right border parts see it mirrored, where the whole is padded with zeros.
    assert np.abs(parts - whole)[:-80, :-80].max() < 5e-3
    assert np.abs(parts - whole).mean() < 0.03

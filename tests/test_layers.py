"""Layers behave as torch's do. Goldens: `tools/golden_layers.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_kit as kit
import pytest
import seeded
from flax import nnx
from jax import lax

from zoo.layers import (
    AvgPool,
    BatchNorm,
    Chain,
    Conv,
    HeNormal,
    Linear,
    MaxPool,
    Normal,
    Padding,
    avg_pool,
    dense_conv,
    depthwise_conv,
    global_avg_pool,
    grouped_conv,
    max_pool,
    recoverable_relu,
    resolve_padding,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")

TOLERANCE = 2e-5


@cache
def golden() -> dict[str, Any]:
    return json.loads((kit.GOLDEN / "layers.json").read_text())


def image(key: str) -> jax.Array:
    """The image whose size a golden's key starts with, e.g. `(9, 12) 3 2 ...`."""
    height, width = key[key.index("(") + 1 : key.index(")")].split(",")
    return jnp.asarray(seeded.images(2, int(height), int(width), 8))


def arguments(key: str) -> list[str]:
    return key[key.index(")") + 2 :].split()


# Pooling -----------------------------------------------------------------------------------------------------------


def test_pooling_equals_torch_for_every_mode() -> None:
    cases = golden()["pools"]
    assert len(cases) == 36

    @jax.jit  # one program of all, which compiles in a fifth of the time of one for each
    def pooled(images: dict[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
        found = {}
        for key, x in images.items():
            window, stride, padding, ceil, *count = arguments(key)
            sizes, mode = (int(window), int(stride), int(padding)), {"ceil_mode": ceil == "True"}
            if key.startswith("max"):
                found[key] = max_pool(x, *sizes, **mode), MaxPool(*sizes, **mode)(x)
            else:
                mode["count_padding"] = count == ["True"]
                found[key] = avg_pool(x, *sizes, **mode), AvgPool(*sizes, **mode)(x)
        return found

    wrong = {}
    for key, (found, by_layer) in pooled({key: image(key) for key in cases}).items():
        assert np.array_equal(found, by_layer)
        if (deviation := seeded.error(np.asarray(found), cases[key])) > TOLERANCE:
            wrong[key] = (deviation, found.shape, cases[key]["shape"])
    assert not wrong


def test_average_over_same_padding_counts_what_is_there() -> None:
    """TensorFlow's rule: the mean over the pixels inside the image."""
    x = jnp.ones((1, 5, 4, 2))
    assert np.allclose(avg_pool(x, 3, 2, "same", count_padding=False), 1)


def test_global_average() -> None:
    x = jnp.asarray(seeded.images(2, 3, 4, 5))
    assert np.allclose(global_avg_pool(x), np.asarray(x).mean((1, 2)), atol=1e-6)


# Convolution -------------------------------------------------------------------------------------------------------


def conv(kernel: int, stride: int, padding: int, dilation: int, groups: int) -> Conv:
    layer = nnx.eval_shape(
        lambda: Conv(8, 8, kernel, stride, padding, dilation=dilation, groups=groups, bias=False, rngs=nnx.Rngs(0))
    )
    layer.kernel.set_value(
        jnp.asarray(seeded.tensor("conv.weight", (8, 8 // groups, kernel, kernel)).transpose(2, 3, 1, 0))
    )
    return layer


def test_convolutions_and_their_gradients_equal_torch() -> None:
    wrong = {}
    for key, wanted in golden()["convs"].items():
        graphdef, params = nnx.split(conv(*map(int, arguments(key))))

        def loss(
            params: nnx.State, x: jax.Array, graphdef: nnx.GraphDef[Conv] = graphdef
        ) -> tuple[jax.Array, jax.Array]:
            y = nnx.merge(graphdef, params)(x)
            return jnp.sum(jnp.square(y)), y

        (of_kernel, of_input), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, image(key))
        found = {"output": y, "input_gradient": of_input, "kernel_gradient": of_kernel["kernel"].get_value()}
        for name, array in found.items():
            if (deviation := seeded.error(np.asarray(array), wanted[name])) > TOLERANCE:
                wrong[key, name] = deviation
    assert not wrong


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [
        ((7, 10), (3, 3), (1, 1), 1, (1, 1)),
        ((7, 10), (3, 3), (2, 2), "same", (1, 1)),
        ((8, 5), (3, 3), (2, 2), 1, (1, 1)),
        ((6, 5), (5, 5), (2, 1), (2, 0), (1, 1)),
        ((7, 9), (3, 3), (3, 3), 0, (1, 1)),
        ((4, 4), (1, 3), (1, 2), (2, 1), (1, 1)),
        ((7, 10), (3, 3), (1, 1), "same", (2, 4)),
        ((9, 8), (3, 5), (2, 1), (2, 4), (2, 3)),
        ((5, 6), (3, 3), (1, 1), 12, (12, 12)),
    ],
)
def test_depthwise_convolution_and_its_gradients_equal_the_librarys(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
) -> None:
    x = jnp.asarray(seeded.images(2, *size, 4))
    taps = jnp.asarray(seeded.tensor("dw.weight", (4, 1, *kernel)).transpose(2, 3, 1, 0))
    pads = resolve_padding(padding, size, kernel, stride, dilation)

    def library(x: jax.Array, taps: jax.Array) -> jax.Array:
        return library_conv(x, taps, 4, stride, pads, dilation)

    @partial(jax.jit, static_argnums=0)
    def run(function: Callable[..., jax.Array], x: jax.Array, taps: jax.Array) -> tuple[jax.Array, ...]:
        y, back = jax.vjp(function, x, taps)
        return y, *back(jnp.cos(1 + jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    ours = run(lambda x, taps: depthwise_conv(x, taps, stride, pads, dilation), x, taps)
    for a, b in zip(ours, run(library, x, taps), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() < TOLERANCE * max(1, float(np.abs(b).max()))


def test_depthwise_is_lowered_for_each_platform_to_what_is_fast_there() -> None:
    x, taps = jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4))
    traced = jax.jit(lambda x, k: depthwise_conv(x, k, (1, 1), ((1, 1), (1, 1)))).trace(x, taps)
    # A tunable library kernel where there is one; slices and sums on CPU.
    assert "stablehlo.convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("tpu",)).as_text()


def library_conv(x: jax.Array, kernel: jax.Array, groups: int, stride: Any, pads: Any, dilation: Any) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, stride, pads, rhs_dilation=dilation, dimension_numbers=dimensions, feature_group_count=groups
    )


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "stride", "dilation"),
    [
        (32, 64, 16, 1, 1),
        (48, 48, 12, 2, 1),
        (120, 60, 3, 1, 1),
        (6, 12, 6, 1, 1),
        (64, 64, 32, 1, 2),
        (35, 70, 7, 2, 1),
    ],
)
def test_grouped_convolution_and_its_gradients_equal_the_librarys(
    inputs: int, outputs: int, groups: int, stride: int, dilation: int
) -> None:
    """Groups that make up a part exactly, that leave parts of one group, and that have more outputs than inputs."""
    x = jnp.asarray(seeded.images(2, 11, 8, inputs))
    kernel = jnp.asarray(seeded.tensor("w", (outputs, inputs // groups, 3, 3)).transpose(2, 3, 1, 0))
    rest = (groups, (stride, stride), ((1, 2), (0, 1)), (dilation, dilation))

    def loss(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = function(x, kernel, *rest)
        return jnp.sum(jnp.sin(y)), y

    found, wanted = (
        jax.jit(jax.value_and_grad(partial(loss, f), (0, 1), has_aux=True))(x, kernel)
        for f in (grouped_conv, library_conv)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted)


@pytest.mark.parametrize(
    ("size", "window", "stride", "pads", "dilation"),
    [
        ((21, 30), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),  # the last band of rows is filled up
        ((5, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),  # all images in one block
        ((12, 12), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),  # the last block of images is filled up
        ((23, 37), (7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)),  # pixels at the end that no window sees
        ((20, 33), (3, 3), (2, 1), ((0, 1), (1, 0)), (1, 1)),
        ((19, 40), (3, 2), (1, 2), ((2, 2), (0, 3)), (2, 3)),
        ((18, 29), (1, 7), (1, 1), ((0, 0), (3, 3)), (1, 1)),
        ((17, 300), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),  # a row that is longer than a block
    ],
)
def test_the_gradient_of_a_dense_convolution_equals_the_librarys(
    size: Any, window: Any, stride: Any, pads: Any, dilation: Any
) -> None:
    x = jnp.asarray(seeded.images(3, *size, 5))
    kernel = jnp.asarray(seeded.tensor("w", (6, 5, *window)).transpose(2, 3, 1, 0))

    def gradients(function: Callable[..., jax.Array]) -> Any:
        y, back = jax.vjp(function, x, kernel)
        return y, back(jnp.sin(3 * y))

    found = jax.jit(lambda: gradients(lambda x, k: dense_conv(x, k, stride, pads, dilation)))()
    wanted = jax.jit(lambda: gradients(lambda x, k: library_conv(x, k, 1, stride, pads, dilation)))()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert float(jnp.abs(a - b).max()) < TOLERANCE * float(jnp.abs(b).max())


def test_the_gradient_of_a_dense_convolution_keeps_to_half_precision() -> None:
    x = jnp.asarray(seeded.images(2, 20, 30, 4))
    kernel = jnp.asarray(seeded.tensor("w", (6, 4, 3, 3)).transpose(2, 3, 1, 0))

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y, back = jax.vjp(lambda k: dense_conv(x, k, (1, 1), ((1, 1), (1, 1)), (1, 1)), kernel)
        return back(jnp.ones_like(y))[0]

    half = gradient(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), gradient(x, kernel), rtol=0.02, atol=0.5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [((12, 8), 4, 4), ((13, 11), 4, 4), ((7, 7), 7, 1), ((7, 5), (7, 5), 1), ((9, 6), (3, 2), (3, 2))],
)
def test_windows_that_do_not_overlap_are_a_matrix_product(size: Any, kernel: Any, stride: Any) -> None:
    layer = Conv(3, 5, kernel, stride, rngs=nnx.Rngs(0))
    x = jnp.asarray(seeded.images(2, *size))
    steps = (stride, stride) if isinstance(stride, int) else stride
    wanted = library_conv(x, layer.kernel[...], 1, steps, ((0, 0), (0, 0)), (1, 1))
    np.testing.assert_allclose(layer(x), wanted + layer.bias[...].reshape(1, 1, 1, -1), rtol=1e-5, atol=1e-5)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(lambda x: layer(x))(x))


def test_grouped_convolutions_and_pools_are_lowered_for_each_platform_to_what_is_fast_there() -> None:
    x = jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32)
    grouped = Conv(8, 8, 3, 1, 1, groups=4, rngs=nnx.Rngs(0))
    net = jax.jit(lambda x: max_pool(grouped(x), 3, 2, 1))
    on_cpu, on_gpu = (str(net.trace(x).lower(lowering_platforms=(platform,)).as_text()) for platform in ("cpu", "cuda"))
    assert "reduce_window" not in on_cpu and "feature_group_count = 4" not in on_cpu
    assert "reduce_window" in on_gpu and "feature_group_count = 4" in on_gpu


def test_a_tie_in_a_maximum_gives_its_gradient_to_the_first() -> None:
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2)))(jnp.ones((1, 4, 4, 1)))
    assert gradient[0, :, :, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_same_padding_puts_the_odd_pixel_last() -> None:
    assert resolve_padding("same", (8, 9), (3, 3), (2, 2)) == ((0, 1), (1, 1))
    assert resolve_padding("same", (8, 8), (3, 3), (1, 1), (2, 2)) == ((2, 2), (2, 2))
    assert resolve_padding("same", (4, 4), (1, 1), (2, 2)) == ((0, 0), (0, 0))
    assert resolve_padding((2, 1), (8, 9), (3, 3), (2, 2)) == ((2, 2), (1, 1))


def test_arithmetic_follows_the_input_and_parameters_stay_in_float32() -> None:
    rngs = nnx.Rngs(0)
    net = Chain([Conv(3, 4, 3, 1, 1, rngs=rngs), BatchNorm(4, rngs=rngs), Conv(4, 4, 3, 1, 1, groups=4, rngs=rngs)])
    x = jnp.ones((2, 6, 6, 3), jnp.bfloat16)
    assert net(x).dtype == Linear(4, 2, rngs=rngs)(net(x)).dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(net)))


# Normalisation -----------------------------------------------------------------------------------------------------


def norm() -> BatchNorm:
    layer = BatchNorm(8, rngs=nnx.Rngs(0))
    for variable, name in (
        (layer.scale, "weight"),
        (layer.bias, "bias"),
        (layer.mean, "running_mean"),
        (layer.var, "running_var"),
    ):
        variable.set_value(jnp.asarray(seeded.tensor(f"bn.{name}", (8,))))
    return layer


def test_batch_norm_trains_and_evaluates_as_torchs() -> None:
    wanted, layer = golden()["batch_norm"], norm()
    outputs = [layer(image("(9, 12)")), layer(image("(10, 7)"))]
    layer.eval()
    before = np.asarray(layer.mean[...])
    outputs.append(layer(image("(5, 6)")))
    for found, one in zip(outputs, wanted["outputs"], strict=True):
        assert seeded.error(np.asarray(found), one) < TOLERANCE
    assert seeded.error(np.asarray(layer.mean[...]), wanted["mean"]) < TOLERANCE
    assert seeded.error(np.asarray(layer.var[...]), wanted["var"]) < TOLERANCE, "unbiased variance of the batch"
    assert np.array_equal(before, layer.mean[...]), "evaluation leaves the statistics alone"


def test_batch_norm_of_a_single_value_keeps_finite_statistics() -> None:
    layer = norm()
    layer(jnp.ones((1, 1, 1, 8)))
    assert np.isfinite(np.asarray(layer.var[...])).all()


# Initialisation ----------------------------------------------------------------------------------------------------


def test_initialisers_have_the_variance_they_say() -> None:
    key = jax.random.key(0)
    assert float(jnp.std(Normal(0.02)(key, (200, 200)))) == pytest.approx(0.02, rel=0.02)
    truncated = Normal(1.0, truncated=True)(key, (200, 200))
    assert float(jnp.abs(truncated).max()) <= 2
    assert float(jnp.std(HeNormal()(key, (3, 3, 64, 128)))) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert float(jnp.std(HeNormal(64)(key, (3, 3, 1, 6400)))) == pytest.approx((2 / (9 * 100)) ** 0.5, rel=0.02)
    assert np.array_equal(Normal(1.0)(key, (5,)), Normal(1.0)(key, (5,)))
    assert not np.array_equal(Normal(1.0)(key, (5,)), Normal(1.0)(jax.random.key(1), (5,)))


def test_initialisers_work_under_a_trace() -> None:
    traced = jax.jit(lambda key: HeNormal()(key, (3, 3, 16, 32)))(jax.random.key(0))
    assert float(jnp.std(traced)) == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.1)


# Activations ----------------------------------------------------------------------------------------------------------


def test_a_recoverable_relu_gives_what_relu_gives_and_passes_what_raises_its_input() -> None:
    x = jnp.array([-2.0, -2.0, 0.0, 0.0, 3.0, 3.0])
    push = jnp.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    value, back = jax.vjp(recoverable_relu, x)
    assert value.tolist() == jax.nn.relu(x).tolist()
    assert back(push)[0].tolist() == [-1, 0, -1, 0, -1, 1]
    assert recoverable_relu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16

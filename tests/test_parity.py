"""What the goldens of backbones can see: faults, put into the smallest net of each family, change its logits.

`test_every_backbone.py` holds every net against them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpy_programs
import parity_kit as kit
import pytest
import seeded
from flax import nnx

from zoo.layers import BatchNorm, Conv, LayerNorm, Linear
from zoo.models.model import Model

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def _convs(model: Model) -> list[Conv]:
    return [node for _, node in nnx.iter_modules(model.backbone) if isinstance(node, Conv)]


def _norms(model: Model) -> list[BatchNorm | LayerNorm]:
    return [node for _, node in nnx.iter_modules(model.backbone) if isinstance(node, BatchNorm | LayerNorm)]


def _swap_image_axes(model: Model) -> None:
    conv = next(conv for conv in _convs(model) if conv.kernel.shape[0] == conv.kernel.shape[1] > 1)
    conv.kernel[...] = jnp.swapaxes(conv.kernel[...], 0, 1)


def _transpose_square_matrix(model: Model) -> None:
    nodes = [node for _, node in nnx.iter_modules(model.backbone) if isinstance(node, Conv | Linear)]
    square = [node for node in nodes if node.kernel.shape[-2] == node.kernel.shape[-1] > 1]
    square[-1].kernel[...] = jnp.swapaxes(square[-1].kernel[...], -2, -1)


def _wrong_eps(model: Model) -> None:
    norms = _norms(model)
    norms[0].eps *= 100
    for norm in norms:
        norm.eps *= 100


def _swap_mean_and_var(model: Model) -> None:
    norm = [norm for norm in _norms(model) if isinstance(norm, BatchNorm)][-1]
    mean, var = norm.mean[...], norm.var[...]
    norm.mean[...], norm.var[...] = var, jnp.abs(mean)


def _shift_padding(model: Model) -> None:
    # A 2x2 kernel of stride 2 is not padded by either rule.
    strided = next(conv for conv in _convs(model) if conv.strides == (2, 2) and conv.kernel.shape[0] > 2)
    strided.torch_padding = strided.kernel.shape[0] // 2 if strided.torch_padding == "same" else "same"


def _drop_bias(model: Model) -> None:
    nodes = [*_norms(model), *(conv for conv in _convs(model) if conv.bias is not None)]
    nodes[0].bias[...] = jnp.zeros_like(nodes[0].bias[...])


# Goldens seldom change: the smallest net of convolutions and the smallest transformer by default, all with
# `make test-all`.
DAILY = {next(n for n in kit.one_per_family() if bool(kit.golden(n)["scales"]) is normed) for normed in (True, False)}
EACH = [name if name in DAILY else pytest.param(name, marks=pytest.mark.exhaustive) for name in kit.one_per_family()]
FAULTS = (_swap_image_axes, _transpose_square_matrix, _wrong_eps, _swap_mean_and_var, _shift_padding, _drop_bias)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
@pytest.mark.parametrize("name", EACH)
def test_a_fault_is_seen_by_the_golden(name: str, fault: Callable[[Model], None]) -> None:
    spec, golden = kit.backbones()[name], kit.golden(name)
    model = kit.composed(spec)
    kit.load(model, kit.checkpoint(name))
    try:
        fault(model)
    except (IndexError, StopIteration):
        pytest.skip(f"{name} has no layer that this fault could be made in")
    found = kit.errors(kit.outputs(model, seeded.images(2, *golden["size"])), golden["outputs"])
    assert found["logits"] > 10 * kit.TOLERANCE, found


@pytest.mark.parametrize("name", EACH)
def test_a_tanh_gelu_is_seen_by_the_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error function is replaced by one that makes the exact GELU its tanh approximation (arXiv:1606.08415)."""
    calls: list[object] = []

    def like_tanh(z: np.ndarray) -> np.ndarray:
        calls.append(z)
        x = z * math.sqrt(2)
        return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).astype(z.dtype)

    monkeypatch.setitem(numpy_programs.ELEMENTWISE, "erf", like_tanh)
    monkeypatch.setitem(numpy_programs.ELEMENTWISE, "erfc", lambda z: 1 - like_tanh(z))
    found = kit.deviations(kit.composed(kit.backbones()[name]), name)
    if not calls:
        pytest.skip(f"{name} has no exact GELU")
    assert found["logits"] > kit.TOLERANCE, found


def test_the_fill_depends_on_names_alone() -> None:
    a = seeded.tensor("layer1.0.conv1.weight", (4, 3, 3, 3))
    assert np.array_equal(a, seeded.tensor("layer1.0.conv1.weight", (4, 3, 3, 3)))
    assert not np.array_equal(a, seeded.tensor("layer1.0.conv2.weight", (4, 3, 3, 3)))
    # Written down once, so that another release of NumPy that draws other numbers is noticed here and not in a golden.
    assert seeded.generator("x").standard_normal(3, np.float32).tolist() == [
        -0.258577823638916,
        0.7759139537811279,
        0.4367695450782776,
    ]

"""`zoo plugins check` names each broken promise about the values of a backbone in one sentence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from zoo.layers import Conv
from zoo.models.backbone import Backbone
from zoo.models.conformance import check_values
from zoo.registry.spec import ClassifierLayout, Stage


class Net(Backbone):
    """One convolution, which keeps its promises."""

    def __init__(self, *, rngs: nnx.Rngs, in_channels: int = 3):
        self.conv = Conv(in_channels, 4, 3, 2, 1, bias=False, rngs=rngs)

    def stages(self):
        return {"stem": self.stem}

    def stem(self, x):
        return nnx.relu(self.conv(x))


class Diverging(Net):
    def stem(self, x):
        return super().stem(x) / jnp.zeros((), x.dtype)


class ThreeOnly(Net):
    def __init__(self, *, rngs: nnx.Rngs, in_channels: int = 3):
        super().__init__(rngs=rngs, in_channels=3)


class Ignoring(ThreeOnly):
    def stem(self, x):
        return super().stem(jnp.broadcast_to(x[..., :1], (*x.shape[:3], 3)))


class Random(Net):
    def __init__(self, *, rngs: nnx.Rngs, in_channels: int = 3):
        super().__init__(rngs=rngs, in_channels=in_channels)
        self.noise = nnx.Dropout(0.5, rngs=rngs)

    def stem(self, x):
        self.noise.deterministic = False
        return self.noise(super().stem(x))


class Counting(Net):
    def __init__(self, *, rngs: nnx.Rngs, in_channels: int = 3):
        super().__init__(rngs=rngs, in_channels=in_channels)
        self.calls = nnx.BatchStat(jnp.zeros(()))

    def stem(self, x):
        self.calls.set_value(self.calls.get_value() + 1)
        return super().stem(x)


class Float32(Net):
    def stem(self, x):
        return super().stem(x).astype(jnp.float32)


class Root(Net):
    def stem(self, x):
        y = super().stem(x)
        return jnp.sqrt(y - jax.lax.stop_gradient(y))


class Changing(Net):
    def stem(self, x):
        if isinstance(x, np.ndarray):
            x *= 2
        return super().stem(jnp.asarray(x))


def spec(net: type[Net]) -> zoo.BackboneSpec:
    stages = (Stage("stem", 4, 2, modules=("conv",)),)
    return zoo.BackboneSpec("net", "Test", net, stages, ClassifierLayout("fc"), min_size=8)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Diverging, "stage stem gives values that are not finite"),
        (ThreeOnly, "images of 8 pixels and 1 channels are not accepted"),
        (Ignoring, "in_channels is ignored"),
        (Random, "other values at the second call"),
        (Counting, "changes parameters or statistics"),
        (Float32, "float32 for bfloat16 images"),
        (Root, "the gradient of its last stage is not finite"),
        (Changing, "the images that it is given are changed"),
    ],
)
def test_each_broken_promise_is_named(net: type[Net], said: str):
    assert any(said in problem for problem in check_values(spec(net)))


def test_a_net_that_keeps_them_conforms():
    assert check_values(spec(Net)) == []

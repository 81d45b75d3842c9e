"""What every family of backbones must do, shown by its smallest net. A new family is tested by existing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import numpy_programs
import parity_kit as kit
import pytest
import seeded
from flax import nnx

import zoo
from zoo.errors import ConfigError, PluginError, UnknownNameError
from zoo.layers import BatchNorm, Conv
from zoo.models import store
from zoo.models.backbone import Backbone, abstract, feature_shapes, run_stages
from zoo.models.card import Card
from zoo.models.conformance import check_backbone
from zoo.models.model import Model
from zoo.models.saved import Saved
from zoo.registry.spec import BackboneSpec, Range

pytestmark = pytest.mark.usefixtures("strict_dtypes")

FAMILIES = kit.one_per_family()
KEPT = (nnx.Param, nnx.BatchStat)


def _odd_size(spec: BackboneSpec) -> tuple[int, int]:
    """A small size that is not square, odd where the family takes odd sides, and not below its least."""
    least, multiple = spec.min_size, spec.size_multiple
    return tuple(-(-(least + extra) // multiple) * multiple for extra in (33, 14))  # type: ignore[return-value]


def _model(name: str, **kwargs: object) -> Model:
    spec = kit.backbones()[name]
    model = kit.composed(spec, **kwargs)  # type: ignore[arg-type]
    kit.load(model, kit.checkpoint(name))
    return model


@pytest.mark.parametrize("name", kit.each_family())
def test_other_image_channels_dtypes_and_odd_sizes(name: str) -> None:
    """Four channels, and bfloat16 that stays bfloat16 in every stage; one channel, of which only the first stage can
    know."""
    spec = kit.backbones()[name]
    names, size = [stage.name for stage in spec.stages], _odd_size(spec)
    shapes = feature_shapes(spec, size, names, in_channels=4, dtype=jnp.bfloat16)
    grey = feature_shapes(spec, size, names[:1], in_channels=1)[names[0]]
    assert grey.shape == shapes[names[0]].shape and grey.dtype == jnp.float32
    for stage in spec.stages:
        assert shapes[stage.name].dtype == jnp.bfloat16
        shape = shapes[stage.name].shape
        assert (shape[0], shape[-1]) == (1, stage.channels)
        if stage.kind == "map":
            # Unpadded convolutions lose up to a kernel at the edges; none gives more than a pixel for each stride.
            for side, out in zip(size, shape[1:3], strict=True):
                assert 1 <= out <= -(-side // stage.stride)


@pytest.mark.parametrize("name", kit.each_family())
def test_the_least_size_is_accepted_and_one_less_is_not(name: str) -> None:
    spec = kit.backbones()[name]
    least = -(-spec.min_size // spec.size_multiple) * spec.size_multiple
    spec.check_size((least, least))
    shapes = feature_shapes(spec, (least, least), [spec.stages[-1].name])
    assert min(shapes[spec.stages[-1].name].shape) >= 1
    with pytest.raises(ConfigError, match=str(spec.min_size)):
        spec.check_size((spec.min_size - 1, least))


def _features_and_logits(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The last stage's output, by one compiled program as in real use, and the logits."""
    last = model.spec.stages[-1].name
    found = zoo.features(model, jnp.asarray(seeded.images(2, *kit.golden(model.spec.name)["size"])))
    logits = model.outputs(model.head.reduce(found))
    return np.asarray(found[last]), np.asarray(logits)


def _pooled(spec: BackboneSpec, last: np.ndarray) -> np.ndarray:
    """What a classifier without classes makes of the last stage's output."""
    bare = kit.composed(spec, labels=())
    assert not jax.tree.leaves(nnx.state(bare.head))
    return np.asarray(bare.outputs(bare.head.reduce({spec.stages[-1].name: jnp.asarray(last)})))


@pytest.mark.parametrize("name", kit.each_family())
def test_one_compiled_program_gives_the_references_logits(name: str) -> None:
    """`test_parity.py` compiles block by block. With `num_classes=0` the pooled features are the output."""
    model, wanted = _model(name), kit.golden(name)["outputs"]
    features, logits = _features_and_logits(model)
    assert seeded.error(features, wanted[model.spec.stages[-1].name]) < kit.TOLERANCE
    assert seeded.error(logits, wanted["logits"]) < kit.TOLERANCE
    assert seeded.error(_pooled(model.spec, features), wanted["pooled"]) < kit.TOLERANCE


def test_bfloat16_is_close_to_float32_and_gives_float32_logits() -> None:
    name = FAMILIES[0]
    features, logits = _features_and_logits(_model(name, dtype="bfloat16"))
    assert (features.dtype, logits.dtype) == (jnp.bfloat16, np.float32)
    assert 1e-5 < seeded.error(logits, kit.golden(name)["outputs"]["logits"]) < 0.25


@pytest.mark.parametrize("name", kit.each_family())
def test_saved_and_loaded_is_bit_for_bit_the_same(name: str, tmp_path: Path) -> None:
    model = _model(name)
    again = zoo.load(zoo.save(model, tmp_path / "model.safetensors"))
    assert again.labels == model.labels
    assert (again.card.preprocess, again.card.options) == (model.card.preprocess, model.card.options)
    one, two = nnx.state(model), nnx.state(again)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), one, two)


@pytest.mark.parametrize("name", kit.each_family(large=True))
def test_every_array_is_written_and_read_back_where_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a disk: each tensor of the file holds a number of its own. Of large nets, whose arrays would take a
    minute, the names and the description."""
    model, files = kit.composed(kit.backbones()[name]), {}
    numbers = {there: np.float32(i) for i, there in enumerate(store.named_slots(model))}
    filled = {
        there: np.broadcast_to(numbers[there], s.native_shape) for there, (_, s) in store.named_slots(model).items()
    }
    description = json.loads(json.dumps(store.describe(model)))
    card = msgspec.convert(description["card"], Card)
    assert (card.backbone, card.preprocess) == (name, model.card.preprocess)
    assert len(numbers) == len(jax.tree.leaves(nnx.state(model, KEPT)))
    if kit.golden(name)["params"] > kit.LARGE:
        return
    file = SimpleNamespace(path="model.safetensors", load=lambda: filled)
    described = Saved(card, tuple(description["labels"]), description["adapter"])
    again = store._rebuild(described, file)  # type: ignore[arg-type]
    monkeypatch.setattr(store, "write_tensors", lambda path, tensors, metadata: files.update(tensors))
    store.save(again, Path("nowhere.safetensors"))
    assert files.keys() == numbers.keys()
    for there, array in files.items():
        assert array.shape == filled[there].shape and (array == numbers[there]).all(), there


@pytest.mark.parametrize("name", kit.each_family())
def test_random_weights_give_finite_features_that_differ_by_image(name: str) -> None:
    model = zoo.create(name, "classifier", pretrained=False, num_classes=2, seed=1)
    features = kit.outputs(model, seeded.images(2, *kit.golden(name)["size"]))[model.spec.stages[-1].name]
    # In units of their own scale: statistics that no training has set let the SiLU and gates shrink features.
    assert np.isfinite(features).all() and features.std() > 1e-7
    assert np.abs(features[0] - features[1]).max() > 1e-2 * features.std()


def _statistics(graphdef: nnx.GraphDef[Any], state: nnx.State, x: jax.Array) -> nnx.State:
    """The statistics after a step of training."""
    backbone = nnx.merge(graphdef, state, copy=True)
    backbone(x)
    return nnx.state(backbone, nnx.BatchStat)


@pytest.mark.parametrize("name", kit.each_family(large=True))
def test_training_computes_every_statistic_anew(name: str) -> None:
    """None comes out of the traced program as it went in."""
    backbone = abstract(kit.backbones()[name])
    backbone.train()
    x = jax.ShapeDtypeStruct((2, *kit.golden(name)["size"], 3), jnp.float32)
    graphdef, state = nnx.split(backbone)
    program = jax.make_jaxpr(partial(_statistics, graphdef))(state, x).jaxpr
    assert len(program.outvars) == len(jax.tree.leaves(nnx.state(backbone, nnx.BatchStat)))
    assert not set(map(id, program.outvars)) & set(map(id, program.invars))


def test_training_moves_every_statistic() -> None:
    model = _model(next(name for name in FAMILIES if len(kit.golden(name)["scales"])))
    x = jnp.asarray(seeded.images(2, *kit.golden(model.spec.name)["size"]))
    model.train()
    graphdef, state = nnx.split(model.backbone)
    before = jax.tree.leaves(nnx.state(model.backbone, nnx.BatchStat))
    step = jax.jit(partial(_statistics, graphdef), compiler_options=kit.UNOPTIMISED)
    assert before and not any(map(np.array_equal, before, jax.tree.leaves(step(state, x))))


@pytest.mark.parametrize("name", kit.each_family())
def test_a_stage_can_start_from_the_output_of_the_one_before(name: str) -> None:
    model, size = kit.composed(kit.backbones()[name]), kit.golden(name)["size"]
    model.eval()
    stages = [stage.name for stage in model.spec.stages]
    graphdef, state = nnx.split(model.backbone)

    def both(state: nnx.State, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        backbone = nnx.merge(graphdef, state)
        whole = run_stages(backbone, x, stages[-2:])
        return whole[stages[-1]], run_stages(backbone, whole[stages[-2]], stages[-1:], after=stages[-2])[stages[-1]]

    at_once, in_two = jax.eval_shape(both, state, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    assert at_once == in_two
    with pytest.raises(UnknownNameError):
        run_stages(model.backbone, jnp.zeros((1, *size, 3)), stages[:1], after=stages[-1])
    with pytest.raises(UnknownNameError, match="layer99"):
        run_stages(model.backbone, jnp.zeros((1, *size, 3)), ["layer99"])


def _loss_and_statistics(
    graphdef: nnx.GraphDef[Any], remat: bool, params: nnx.State, rest: nnx.State, x: jax.Array
) -> tuple[jax.Array, nnx.State]:
    backbone = nnx.merge(graphdef, params, rest, copy=True)
    last = list(backbone.stages_for(None))[-1]
    y = run_stages(backbone, x, [last], remat=remat)[last]
    return jnp.mean(jnp.square(y)), nnx.state(backbone, (nnx.BatchStat, nnx.RngState))


def _random(name: str) -> dict[str, float]:
    """Everything random that the family has."""
    return {key: 0.5 for key, values in kit.backbones()[name].options.items() if isinstance(values, Range)}


@pytest.mark.parametrize("name", kit.each_family())
def test_every_stage_is_recomputed(name: str) -> None:
    """Statistics and random streams move inside the recomputed stages, and nothing is computed beside them."""
    spec = kit.backbones()[name]
    backbone = abstract(spec, **_random(name))
    backbone.train()
    graphdef, params, rest = nnx.split(backbone, nnx.Param, ...)
    x = jax.ShapeDtypeStruct((2, *kit.golden(name)["size"], 3), jnp.float32)
    program = jax.make_jaxpr(partial(_loss_and_statistics, graphdef, True))(params, rest, x).jaxpr
    beside = {equation.primitive.name for equation in program.eqns if "prevent_cse" not in equation.params}
    assert sum("prevent_cse" in equation.params for equation in program.eqns) == len(spec.stages)
    assert not {"conv_general_dilated", "dot_general", "custom_vjp_call"} & beside, beside


class ThreeStages(Backbone):
    """All that a stage may change while it is recomputed: running statistics and a random stream."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convs = nnx.List(Conv(a, b, 3, 1, 1, rngs=rngs) for a, b in ((3, 8), (8, 8), (8, 8)))
        self.norms = nnx.List(BatchNorm(8, rngs=rngs) for _ in range(3))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def stages(self) -> dict[str, Callable[[jax.Array], jax.Array]]:
        return {f"s{i}": partial(self.stage, i) for i in range(3)}

    def stage(self, i: int, x: jax.Array) -> jax.Array:
        return self.dropout(nnx.relu(self.norms[i](self.convs[i](x))))


def _steps() -> tuple[Any, list[Any], tuple[nnx.State, nnx.State, jax.Array]]:
    """The forward pass, its gradient without and with recomputed stages, and their arguments."""
    backbone = ThreeStages(nnx.Rngs(0))
    backbone.train()
    graphdef, params, rest = nnx.split(backbone, nnx.Param, ...)
    passes = [partial(_loss_and_statistics, graphdef, remat) for remat in (False, True)]
    arguments = params, rest, jnp.asarray(seeded.images(2, 16, 20))
    return passes[0], [jax.value_and_grad(one, has_aux=True) for one in passes], arguments


def test_recomputing_stages_costs_a_second_forward_pass() -> None:
    """Nothing is recomputed that was kept, and everything else once."""
    forward, steps, arguments = _steps()
    once, plain, recomputed = (_flops(one, *arguments) for one in (forward, *steps))
    assert 0.8 * once < recomputed - plain < 1.2 * once < plain


def _flops(function: Callable[..., Any], *arguments: Any) -> float:
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_recomputing_stages_changes_no_value() -> None:
    _, steps, arguments = _steps()
    found = [jax.jit(step, compiler_options=kit.UNOPTIMISED)(*arguments) for step in steps]
    statistics = [jax.tree.leaves(nnx.filter_state(after, nnx.BatchStat)) for (_, after), _ in found]
    gradients = [jax.tree.leaves(gradient) for _, gradient in found]
    for one, other in (statistics, gradients):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
    before = jax.tree.leaves(nnx.filter_state(arguments[1], nnx.BatchStat))
    assert len(before) == 6 and not any(map(np.array_equal, before, statistics[1]))


def test_starting_in_the_middle_gives_the_same_values() -> None:
    model = _model(FAMILIES[0])
    stages = [stage.name for stage in model.spec.stages]
    graphdef, state = nnx.split(model.backbone)
    whole = numpy_programs.evaluate(
        lambda state, x: run_stages(nnx.merge(graphdef, state), x, stages[-2:]), state, seeded.images(1, 32, 32)
    )
    part = numpy_programs.evaluate(
        lambda state, x: run_stages(nnx.merge(graphdef, state), x, stages[-1:], after=stages[-2]),
        state,
        whole[stages[-2]],
    )
    assert np.array_equal(part[stages[-1]], whole[stages[-1]])


def test_a_specification_that_is_not_true_is_refused() -> None:
    spec = kit.backbones()[FAMILIES[0]]
    last = spec.stages[-1]
    lie = replace(spec, stages=(*spec.stages[:-1], replace(last, channels=last.channels + 1)))
    with pytest.raises(PluginError, match=last.name):
        feature_shapes(lie, spec.preprocess.size, [last.name])
    stride = replace(spec, stages=(*spec.stages[:-1], replace(last, stride=last.stride * 2)))
    assert any("stride" in problem for problem in check_backbone(stride))
    owner = replace(spec, stages=(*spec.stages[:-1], replace(last, modules=())))
    assert any("no stage owns it" in problem for problem in check_backbone(owner))

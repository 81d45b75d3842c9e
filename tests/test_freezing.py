"""The promise about what trains, for every family that is installed.

Frozen parameters are bit-identical after training, normalisation statistics untouched; the optimizer keeps nothing
for them, their backward pass is not in the step, and a later `.train()` does not undo it. The traced step of every
family shows this: a frozen parameter is not among its outputs, and a frozen statistic leaves as it came in. Two
families are trained as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity_kit as kit
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr

import zoo
from zoo.models.model import Model
from zoo.registry import registry
from zoo.training.plans import preset
from zoo.training.rules import Assignment, assign
from zoo.training.step import Program, TrainState, install, optimizer, start

PLANS = ("head", "last:1")
HEAVY = {"conv_general_dilated", "dot_general"}
"""Primitives that nearly all arithmetic of a net is in."""


def side(name: str) -> int:
    """The least accepted image side of a backbone, from 32 pixels on."""
    spec = registry().backbone(name)
    return -(-max(32, spec.min_size) // spec.size_multiple) * spec.size_multiple


NAMES = kit.one_per_family()


def _normalised(name: str) -> bool:
    """Whether a backbone has running statistics."""
    return bool(kit.golden(name)["scales"])


VALUED = [next(name for name in NAMES if _normalised(name)), next(name for name in NAMES if not _normalised(name))]
"""Families that are trained: the smallest with running statistics and the smallest without."""


def batch(name: str, seed: int) -> dict[str, np.ndarray]:
    rng, size = np.random.default_rng(seed), side(name)
    images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    return {"image": images, "label": np.array([0, 1, 2, 1], np.int32), "valid": np.ones(4, bool)}


def begin(model: Model, assignment: Assignment) -> tuple[TrainState, Program]:
    """The first state and the step of a phase whose decay and rate move at once whatever they reach."""
    transform = optimizer(0.1, weight_decay=0.5, clip=1.0, accumulate=1, assignment=assignment)
    return start(model, assignment, transform, augmentation=None, ema=0.0, norm_statistics=False)


# By traces ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traced:
    """A traced step, and what enters and leaves it.

    Attributes:
        frozen: paths of the parameters that the step does not change.
        before, after: variables of the program by the name of the entry of the state, before and after the step.
        kept: numbers that the optimizer holds.
    """

    model: Model
    assignment: Assignment
    program: Jaxpr
    frozen: set[tuple]
    before: dict[str, Any]
    after: dict[str, Any]
    kept: int


@lru_cache(maxsize=2)
def trace(name: str, plan: str) -> Traced:
    model = kit.composed(kit.backbones()[name], labels=("a", "b", "c"))
    model.card = replace(model.card, preprocess=replace(model.card.preprocess, size=(side(name), side(name))))
    assignment = assign(model, preset(model, plan))
    graphdef, arrays = nnx.split(model)
    made: dict[str, Program] = {}

    def first(arrays: nnx.State) -> tuple[TrainState, nnx.State]:
        state, program = begin(nnx.merge(graphdef, arrays, copy=True), assignment)
        made["program"] = program
        return state, program.frozen

    state, frozen = jax.eval_shape(first, arrays)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(name, 0))
    step = made["program"].run.__wrapped__  # type: ignore[attr-defined]
    program, (new, _) = jax.make_jaxpr(step, return_shape=True)(state, frozen, shapes, jax.random.key(0))

    def entries(state: TrainState, variables: list[Any]) -> dict[str, Any]:
        paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        return dict(zip(paths, variables, strict=False))

    return Traced(
        model,
        assignment,
        program.jaxpr,
        {path for path, _ in nnx.to_flat_state(nnx.filter_state(frozen, nnx.Param))},
        entries(state, program.jaxpr.invars),
        entries(new, program.jaxpr.outvars),
        sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)),
    )


def equations(program: Jaxpr) -> Iterator[Any]:
    """Every equation of a program and of the programs in it."""
    for equation in program.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: isinstance(leaf, Jaxpr | ClosedJaxpr)
        ):
            if isinstance(value, Jaxpr | ClosedJaxpr):
                yield from equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def heavy(program: Jaxpr) -> Counter[str]:
    return Counter(equation.primitive.name for equation in equations(program) if equation.primitive.name in HEAVY)


each = pytest.mark.parametrize(
    ("name", "plan"),
    [
        pytest.param(*given.values, plan, marks=given.marks)
        for plan in PLANS
        for given in kit.each_family(large=plan == "head")
    ],
)


def test_every_family_is_here():
    assert len(NAMES) >= 4 and len(set(NAMES)) == len(NAMES)


@each
def test_no_frozen_parameter_and_no_statistic_is_changed_by_the_step(name: str, plan: str):
    """Statistics of the frozen stages because they are frozen, of the others because pretrained ones are kept."""
    traced = trace(name, plan)
    assert traced.frozen and traced.frozen == {p for p, m in traced.assignment.multipliers.items() if m is None}
    assert traced.before.keys() == traced.after.keys()
    moved = {path for path in traced.before if traced.after[path] is not traced.before[path]}
    assert moved >= {path for path in traced.before if path.startswith(".params")}
    assert not {path for path in moved if path.startswith(".mutable") and path.endswith(("['mean']", "['var']"))}


@each
def test_the_optimizer_keeps_nothing_for_frozen_parameters(name: str, plan: str):
    traced = trace(name, plan)
    sizes = {path: v.get_value().size for path, v in nnx.to_flat_state(nnx.state(traced.model, nnx.Param))}
    moving = sum(size for path, size in sizes.items() if traced.assignment.trains(path))
    assert 2 * moving <= traced.kept <= 2 * moving + 8  # two moments, and a few counters


@pytest.mark.parametrize("name", kit.each_family(large=True))
def test_the_backward_pass_of_what_is_frozen_is_not_in_the_step(name: str):
    """What trains of the head is a matrix, whose gradient is one product; the rest is the forward pass."""
    traced = trace(name, "head")
    graphdef, state = nnx.split(traced.model)

    def forward(state: nnx.State, images: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)
        return model(model.normalize(images))

    once = heavy(jax.make_jaxpr(forward)(state, batch(name, 0)["image"]).jaxpr)
    step = heavy(traced.program)
    assert step["conv_general_dilated"] == once["conv_general_dilated"]
    assert step["dot_general"] == once["dot_general"] + 1


@each
def test_a_later_train_call_does_not_undo_it(name: str, plan: str):
    traced = trace(name, plan)
    model = traced.model
    model.freeze(traced.assignment.frozen_modules)
    model.train()
    below = [
        module
        for path, module in nnx.iter_modules(model)
        if any(".".join(map(str, path[:n])) in model.frozen for n in range(1, len(path) + 1))
    ]
    switched = [module for module in below if hasattr(module, "use_running_average")]
    assert all(module.use_running_average for module in switched)
    # Only what the preset trains goes into training mode.
    norms = [module for _, module in nnx.iter_modules(model.backbone) if hasattr(module, "use_running_average")]
    assert {id(m) for m in norms if m.use_running_average} == {id(m) for m in switched}
    model.eval()


@each
def test_a_forward_in_training_mode_moves_no_frozen_statistic(name: str, plan: str):
    traced = trace(name, plan)
    model = traced.model
    model.freeze(traced.assignment.frozen_modules)
    model.train()
    graphdef, statistics, rest = nnx.split(model, nnx.BatchStat, ...)
    model.eval()

    def forward(statistics: nnx.State, rest: nnx.State, images: jax.Array) -> nnx.State:
        live = nnx.merge(graphdef, statistics, rest, copy=True)
        live(live.normalize(images))
        return nnx.state(live, nnx.BatchStat)

    images = jax.ShapeDtypeStruct(batch(name, 1)["image"].shape, np.uint8)
    program = jax.make_jaxpr(forward)(statistics, rest, images).jaxpr
    paths = [path for path, _ in nnx.to_flat_state(statistics)]
    moved = {path for path, a, b in zip(paths, program.invars, program.outvars, strict=False) if a is not b}
    assert moved == {path for path in paths if traced.assignment.multipliers[(*path[:-1], "scale")] is not None}


# By values ---------------------------------------------------------------------------------------------------------


def held(model: Model) -> dict[tuple, bytes]:
    """A digest of the bytes of every parameter and statistic."""
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {path: sha256(np.ascontiguousarray(variable.get_value())).digest() for path, variable in state}


@dataclass
class Trained:
    """The smallest model of a family, trained for a few harsh steps with a preset."""

    name: str
    plan: str

    @cached_property
    def model(self) -> Model:
        """With values that a careless update would disturb: 0.0 + -0.0 is 0.0, so that an update by zero is seen."""
        model = zoo.create(self.name, "classifier", num_classes=3, pretrained=False, image_size=side(self.name))
        for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
            if path[0] == "backbone":
                value = np.array(variable.get_value())
                value.reshape(-1)[::7] = -0.0
                nnx.update(model, nnx.from_flat_state([(path, variable.replace(jnp.asarray(value)))]))
        return model

    @cached_property
    def assignment(self) -> Assignment:
        return assign(self.model, preset(self.model, self.plan))

    @cached_property
    def started(self) -> tuple[TrainState, Program]:
        return begin(self.model, self.assignment)

    @cached_property
    def before_and_after(self) -> tuple[dict[tuple, bytes], dict[tuple, bytes]]:
        state, program = self.started
        before = held(self.model)
        lowered = program.run.lower(state, program.frozen, batch(self.name, 0), jax.random.key(0))  # type: ignore[attr-defined]
        compiled = lowered.compile(compiler_options=kit.UNOPTIMISED)
        for seed in range(3):
            state, metrics = compiled(state, program.frozen, batch(self.name, seed), jax.random.key(0))
            assert np.isfinite(float(metrics["loss"]))
        install(self.model, state)
        return before, held(self.model)


made = lru_cache(maxsize=2)(Trained)
valued = pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in VALUED for plan in PLANS])


@valued
def test_frozen_parameters_are_bit_identical(name: str, plan: str):
    trained = made(name, plan)
    before, after = trained.before_and_after
    frozen = [path for path, multiplier in trained.assignment.multipliers.items() if multiplier is None]
    assert frozen and all(before[path] == after[path] for path in frozen)
    values = dict(nnx.to_flat_state(nnx.state(trained.model, nnx.Param)))
    assert any(np.signbit(v[v == 0]).any() for v in (np.asarray(values[path].get_value()) for path in frozen))


@valued
def test_what_trains_moves(name: str, plan: str):
    trained = made(name, plan)
    before, after = trained.before_and_after
    moving = [path for path, multiplier in trained.assignment.multipliers.items() if multiplier is not None]
    assert moving and all(before[path] != after[path] for path in moving)
    assert any(path[0] == "backbone" for path in moving) == (plan != "head")


@valued
def test_statistics_are_untouched(name: str, plan: str):
    trained = made(name, plan)
    before, after = trained.before_and_after
    statistics = [path for path, _ in nnx.to_flat_state(nnx.state(trained.model, nnx.BatchStat))]
    assert [path for path in statistics if before[path] != after[path]] == []
    assert bool(statistics) == _normalised(name)


def test_the_more_trains_the_more_a_step_costs():
    """The cut lies where the rules say: only the trained stages have a backward pass."""
    costs = []
    for plan in ("head", "last:1", "all"):
        state, program = Trained(NAMES[0], plan).started
        lowered = program.run.lower(state, program.frozen, batch(NAMES[0], 0), jax.random.key(0))  # type: ignore[attr-defined]
        costs.append(lowered.cost_analysis()["flops"])
    assert costs[0] < costs[1] < 0.8 * costs[2] and costs[2] > 2 * costs[0]


def test_the_test_would_see_a_naive_mask():
    """`optax.masked` passes the raw gradients of what is masked out on, as updates: the trap this design avoids."""
    params = {"head": jnp.ones(2), "backbone": jnp.ones(2)}
    naive = optax.masked(optax.sgd(0.1), {"head": True, "backbone": False})
    updates, _ = naive.update(params, naive.init(params), params)
    assert float(updates["backbone"][0]) == 1.0

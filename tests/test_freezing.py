"""The promise about what trains, for every family that is installed.

Frozen parameters are bit-identical after training, normalisation statistics untouched; the optimizer keeps nothing
for them, their backward pass is not in the compiled step, and a later `.train()` does not undo it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import sha256

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity_kit as kit
import pytest
from flax import nnx

import zoo
from zoo.model import Model
from zoo.registry import registry
from zoo.rules import Assignment, assign, preset
from zoo.training.step import Program, TrainState, install, optimizer, start


def side(name: str) -> int:
    """The least accepted image side of a backbone, from 32 pixels on."""
    spec = registry().backbone(name)
    return -(-max(32, spec.min_size) // spec.size_multiple) * spec.size_multiple


NAMES = kit.one_per_family()


def compose(name: str) -> Model:
    """The smallest model of a family, with values that a careless update would disturb."""
    model = zoo.create(name, "classifier", num_classes=3, pretrained=False, image_size=side(name))
    for path, variable in nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        if path[0] == "backbone":
            value = np.array(variable.get_value())
            value.reshape(-1)[::7] = -0.0  # 0.0 + -0.0 is 0.0: an update by zero must not touch it either
            nnx.update(model, nnx.from_flat_state([(path, variable.replace(jnp.asarray(value)))]))
    return model


def held(model: Model) -> dict[tuple, bytes]:
    """A digest of the bytes of every parameter and statistic."""
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {path: sha256(np.ascontiguousarray(variable.get_value())).digest() for path, variable in state}


def batch(name: str, seed: int) -> dict[str, np.ndarray]:
    rng, size = np.random.default_rng(seed), side(name)
    images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    return {"image": images, "label": np.array([0, 1, 2, 1], np.int32), "valid": np.ones(4, bool)}


def flops(program: jax.stages.Compiled | jax.stages.Lowered) -> float:
    analysis = program.cost_analysis()
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    assert analysis is not None
    return analysis["flops"]


@dataclass
class Trained:
    """A model of a family, trained for a few harsh steps with a preset."""

    name: str
    plan: str

    @cached_property
    def model(self) -> Model:
        return compose(self.name)

    @cached_property
    def assignment(self) -> Assignment:
        return assign(self.model, preset(self.model, self.plan))

    @cached_property
    def started(self) -> tuple[TrainState, Program]:
        # Decay and rate are so large that whatever they reach moves at once.
        transform = optimizer(0.1, weight_decay=0.5, clip=1.0, accumulate=1, assignment=self.assignment)
        settings = {"augmentation": None, "ema": 0.0, "norm_statistics": False}
        return start(self.model, self.assignment, transform, **settings)

    @cached_property
    def kept(self) -> int:
        """Numbers that the optimizer keeps."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.started[0].opt_state))

    @cached_property
    def compiled(self) -> jax.stages.Compiled:
        state, program = self.started
        lowered = program.run.lower(state, program.frozen, batch(self.name, 0), jax.random.key(0))
        return lowered.compile(compiler_options=kit.UNOPTIMISED)

    @cached_property
    def before_and_after(self) -> tuple[dict[tuple, bytes], dict[tuple, bytes]]:
        state, program = self.started
        before = held(self.model)
        _ = self.kept  # the step uses its state up
        for seed in range(3):
            state, metrics = self.compiled(state, program.frozen, batch(self.name, seed), jax.random.key(0))
            assert np.isfinite(float(metrics["loss"]))
        install(self.model, state)
        return before, held(self.model)


@lru_cache(maxsize=2)  # both plans of one family: a large net and its copies fill gigabytes
def made(name: str, plan: str) -> Trained:
    return Trained(name, plan)


@pytest.fixture
def trained(name: str, plan: str) -> Trained:
    return made(name, plan)


each = pytest.mark.parametrize(("name", "plan"), [(name, plan) for name in NAMES for plan in ("head", "last:1")])


def test_every_family_is_here():
    assert len(NAMES) >= 4 and len(set(NAMES)) == len(NAMES)


@each
def test_frozen_parameters_are_bit_identical(trained: Trained):
    before, after = trained.before_and_after
    frozen = [path for path, multiplier in trained.assignment.multipliers.items() if multiplier is None]
    assert frozen and all(before[path] == after[path] for path in frozen)
    values = dict(nnx.to_flat_state(nnx.state(trained.model, nnx.Param)))
    assert any(np.signbit(v[v == 0]).any() for v in (np.asarray(values[path].get_value()) for path in frozen))


@each
def test_what_trains_moves(trained: Trained):
    before, after = trained.before_and_after
    moving = [path for path, multiplier in trained.assignment.multipliers.items() if multiplier is not None]
    assert moving and all(before[path] != after[path] for path in moving)
    assert any(path[0] == "backbone" for path in moving) == (trained.plan != "head")


@each
def test_statistics_are_untouched(trained: Trained):
    """Of the frozen stages because they are frozen, of the others because pretrained statistics are kept."""
    before, after = trained.before_and_after
    statistics = [path for path, _ in nnx.to_flat_state(nnx.state(trained.model, nnx.BatchStat))]
    assert [path for path in statistics if before[path] != after[path]] == []


@each
def test_the_optimizer_keeps_nothing_for_frozen_parameters(trained: Trained):
    _, program = trained.started
    sizes = {path: v.get_value().size for path, v in nnx.to_flat_state(nnx.state(trained.model, nnx.Param))}
    moving = sum(size for path, size in sizes.items() if trained.assignment.trains(path))
    assert 2 * moving <= trained.kept <= 2 * moving + 8  # two moments, and a few counters
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.filter_state(program.frozen, nnx.Param))) == (
        sum(sizes.values()) - moving
    )


@each
def test_a_later_train_call_does_not_undo_it(trained: Trained):
    _ = trained.started
    model = trained.model
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
def test_a_forward_in_training_mode_moves_no_frozen_statistic(trained: Trained):
    _ = trained.started
    model = trained.model
    model.train()
    graphdef, state = nnx.split(model)
    model.eval()

    @partial(jax.jit, compiler_options=kit.UNOPTIMISED)
    def forward(state: nnx.State) -> nnx.State:
        live = nnx.merge(graphdef, state)
        live(live.normalize(jnp.asarray(batch(trained.name, 1)["image"])))
        return nnx.state(live, nnx.BatchStat)

    before = {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(nnx.state(model, nnx.BatchStat))}
    after = {path: np.asarray(v.get_value()) for path, v in nnx.to_flat_state(forward(state))}
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    free = {path for path in before if trained.assignment.multipliers[(*path[:-1], "scale")] is not None}
    assert moved == free


@pytest.mark.parametrize("name", NAMES)
def test_the_backward_pass_of_what_is_frozen_is_not_in_the_step(name: str):
    head = made(name, "head")
    graphdef, state = nnx.split(head.model)

    def loss(state: nnx.State, images: jax.Array) -> jax.Array:
        model = nnx.merge(graphdef, state)
        return model(model.normalize(images))

    forward = flops(jax.jit(loss).lower(state, batch(name, 0)["image"]))
    assert flops(head.compiled) < 1.2 * forward


def test_the_more_trains_the_more_a_step_costs():
    """The cut lies where the rules say: only the trained stages have a backward pass."""
    costs = []
    for plan in ("head", "last:1", "all"):
        state, program = Trained(NAMES[0], plan).started
        costs.append(flops(program.run.lower(state, program.frozen, batch(NAMES[0], 0), jax.random.key(0))))
    assert costs[0] < costs[1] < 0.8 * costs[2] and costs[2] > 2 * costs[0]


@pytest.mark.parametrize("name", sorted(kit.backbones()))
def test_every_plan_parts_every_backbone_cleanly(name: str):
    """By shapes alone: each parameter is decided, the head and the last stages train, what is frozen has no optimizer
    state and stays in evaluation mode. That frozen parameters are then held is shown above with values; the step is the
    same for all."""
    model = kit.composed(kit.backbones()[name])
    params = nnx.state(model, nnx.Param)
    sizes = {path: v.get_value().size for path, v in nnx.to_flat_state(params)}
    stages = [stage for stage in model.spec.stages if stage.modules]
    last = tuple(f"backbone.{module}." for module in stages[-1].modules)
    trained: list[int] = []
    for plan in ("head", "last:1", "last:2", f"last:{len(stages) - 1}", "all:0.9", "all"):
        decided = assign(model, preset(model, plan))
        assert decided.multipliers.keys() == sizes.keys()
        moves = {path for path in sizes if decided.trains(path)}
        in_last = {path for path in sizes if ".".join(map(str, path)).startswith(last)}
        in_head = {path for path in sizes if path[0] == "head"}
        assert moves == {"head": in_head, "last:1": in_head | in_last, "all": sizes.keys()}.get(plan, moves)
        trained.append(len(moves))
        if plan == "last:1":
            _check_held(model, decided, params, moves)
    assert trained == sorted(trained) and trained[-1] == trained[-2] == len(sizes)
    assert len(set(trained)) >= 4


def _check_held(model: Model, decided: Assignment, params: nnx.State, moves: set[tuple]):
    """The optimizer holds two moments of what moves, and a few counters; modules without any of it are held."""
    moving = sum(v.get_value().size for path, v in nnx.to_flat_state(params) if path in moves)
    transform = optimizer(0.1, weight_decay=0.5, clip=1.0, accumulate=1, assignment=decided)
    kept = jax.eval_shape(transform.init, nnx.filter_state(params, decided.trains))
    assert 2 * moving <= sum(leaf.size for leaf in jax.tree.leaves(kept)) <= 2 * moving + 8
    model.freeze(decided.frozen_modules)
    model.train()
    above = [{path[:n] for path in paths for n in range(len(path))} for paths in (decided.multipliers, moves)]
    for path, module in nnx.iter_modules(model):
        if path in above[0] - above[1]:
            assert getattr(module, "use_running_average", True) and getattr(module, "deterministic", True), path


def test_the_test_would_see_a_naive_mask():
    """`optax.masked` passes the raw gradients of what is masked out on, as updates: the trap this design avoids."""
    params = {"head": jnp.ones(2), "backbone": jnp.ones(2)}
    naive = optax.masked(optax.sgd(0.1), {"head": True, "backbone": False})
    updates, _ = naive.update(params, naive.init(params), params)
    assert float(updates["backbone"][0]) == 1.0

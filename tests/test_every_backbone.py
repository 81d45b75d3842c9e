"""Every backbone, not one of each family alone: it computes what its reference computes, is what its specification
says, and every plan of training divides it cleanly.

The goldens come from timm, torchvision and torch by `tools/golden_backbones.py`. A new backbone is tested by existing.
One whose program, parameters and declared stages are those of the recorded fingerprint has passed all three tests
before, which is known without tracing where the code behind it is the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import fingerprints
import jax
import numpy as np
import parity_kit as kit
import pytest
import seeded
from flax import nnx

from zoo.models.conformance import check_backbone
from zoo.models.model import Model, parameter_count
from zoo.training.plans import preset
from zoo.training.rules import Assignment, assign
from zoo.training.step import optimizer

ALL = sorted(kit.backbones())
FAMILIES = [name for name in kit.one_per_family() if kit.backbones()[name].family in kit.DAILY]
"""Their smallest nets are tested again whatever they are."""


@lru_cache(maxsize=2)
def _composed(name: str, case: str) -> tuple[Model, bool]:
    """A net, and whether it is the one that is recorded."""
    spec = kit.backbones()[name]
    model = kit.composed(spec, kit.options_of(spec, case))
    known = fingerprints.recorded().get(f"{name} {case}")
    return model, known == kit.fingerprint(model, kit.golden(name, case))


@pytest.fixture
def tested_before(name: str, pytestconfig: pytest.Config) -> bool:
    if name in FAMILIES or pytestconfig.getoption("--values"):
        return False
    return kit.known_code(name) or _composed(name, "default")[1]


@pytest.mark.parametrize("name", ALL)
def test_stages_have_the_declared_channels_strides_and_parameters(name: str, tested_before: bool) -> None:
    """At the weights' own size and a larger one; each parameter belongs to one stage. The smallest of each family is
    checked with every build option."""
    if tested_before:
        return
    assert check_backbone(kit.backbones()[name], options=name in kit.one_per_family()) == []


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize(("name", "case"), kit.cases())
def test_equals_the_reference(
    name: str, case: str, pytestconfig: pytest.Config, record_property: Callable[[str, object], None]
) -> None:
    """By values, with name-seeded weights, unless the program is the one whose values were compared before."""
    again = name in FAMILIES or pytestconfig.getoption("--values")
    if not again and kit.known_code(name) and f"{name} {case}" in fingerprints.recorded():
        return
    spec, golden = kit.backbones()[name], kit.golden(name, case)
    model, unchanged = _composed(name, case)
    shapes = kit.checkpoint_shapes(model)
    hollow = {tensor: np.broadcast_to(np.float32(0), shape) for tensor, shape in shapes.items()}
    for layout, digest in golden["keys"].items():
        there = {tensor: array.shape for tensor, array in kit.in_layout(spec, layout, hollow).items()}
        assert seeded.digest(there) == digest, f"tensor names and shapes of the {layout} layout"
    assert parameter_count(model.backbone) == golden["params"]
    if unchanged and not pytestconfig.getoption("--values"):
        return
    record_property("compared", f"{name} {case}")
    assert max(kit.deviations(model, name, case).values()) <= kit.TOLERANCE


@pytest.mark.parametrize("name", ALL)
def test_every_plan_divides_the_backbone_cleanly(name: str, tested_before: bool) -> None:
    """By shapes alone: each parameter is decided, the head and the last stages train, what is frozen has no optimizer
    state and stays in evaluation mode. `test_freezing.py` shows that frozen parameters are then held; the step is the
    same for all."""
    if tested_before:
        return
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


def _check_held(model: Model, decided: Assignment, params: nnx.State, moves: set[tuple]) -> None:
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

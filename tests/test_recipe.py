"""What tasks do where they are told nothing: enough steps of few images, rates by what trains, averages in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_kit import create, installed, tinynet  # noqa: F401  (fixtures)

from zoo.adapters.detector import Detector
from zoo.adapters.detector.heads import METHODS as HEADS
from zoo.adapters.segmenter import Segmenter
from zoo.adapters.segmenter.decoders import DECODERS
from zoo.adapters.style import METHODS, Style
from zoo.errors import ConfigError
from zoo.models.adapter import Adapter, Training
from zoo.training.config import Recipe
from zoo.training.plan import FINE_RATE, HEAD_RATE, SCRATCH_RATE, make_plan
from zoo.training.step import _averaged

NAMES = {*DECODERS, *HEADS, *METHODS}
ROWS: list[Adapter] = [
    *(Segmenter(decoder=name) for name in DECODERS),  # type: ignore[arg-type]
    *(Detector(head=name) for name in HEADS),  # type: ignore[arg-type]
    *(Style(method=name) for name in METHODS),  # type: ignore[arg-type]
]


def test_few_images_are_seen_in_more_epochs() -> None:
    own = Recipe(epochs=12, steps=80)
    assert [own.epochs_for(updates) for updates in (1, 3, 7, 100, 0.5)] == [80, 27, 12, 12, 160]
    assert Recipe(epochs=10).epochs_for(1) == 10


@pytest.mark.parametrize("adapter", ROWS, ids=lambda one: next(str(v) for v in vars(one).values() if v in NAMES))
def test_every_row_has_a_recipe_that_scales_with_the_data(adapter: Adapter) -> None:
    own = Recipe.of(adapter)
    for images in (4, 27, 1000):
        updates = -(-images // own.batch_size)
        assert updates * own.epochs_for(updates) >= own.steps
    assert own.epochs_for(10_000) == own.epochs


def test_a_row_tells_its_own() -> None:
    """The narrow convolutions at the end of a U-Net want larger steps than a pyramid's."""
    wide, narrow = (Recipe.of(Segmenter(decoder=name)) for name in ("fpn", "unet"))
    assert (wide.head_rate, wide.epochs_for(7)) == (1e-3, 12)
    assert narrow.head_rate is not None and narrow.head_rate > 2e-3 and narrow.epochs_for(7) * 7 >= narrow.steps
    assert Recipe.of(Style(method="gatys")) == Recipe.of(Adapter())


def test_a_recipe_with_what_is_no_part_of_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Adapter, "training", Training(recipe={"epoch": 3}))
    with pytest.raises(ConfigError, match="the recipe of Adapter has epoch; accepted: plan, epochs, steps"):
        Recipe.of(Adapter())


@pytest.mark.usefixtures("installed")
def test_a_heads_rate_is_not_the_backbones() -> None:
    """What a task asks for its new head leaves pretrained layers at theirs; of random values all is new."""
    model = create()

    def rates(**options: Any) -> list[float]:
        return [phase.rate for phase in make_plan(model, "head+all", 10, None, None, **options)]

    model.card = replace(model.card, weights="some", new_head=True)
    assert rates() == [HEAD_RATE, FINE_RATE]
    assert rates(head_rate=4e-3) == [4e-3, FINE_RATE]
    phase = make_plan(model, "head+all", 10, None, None, head_rate=4e-3)[1]
    assert phase.rate * dict(phase.rules)["head.*"] == pytest.approx(4e-4)  # type: ignore[operator]
    assert make_plan(model, "head+all", 10, 1e-5, None, head_rate=4e-3)[1].rate == 1e-5
    model.card = replace(model.card, weights="")
    assert rates(head_rate=1e-3) == [1e-3, 1e-3]
    assert rates(head_rate=1.0) == [1.0, SCRATCH_RATE]


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.9999])
def test_an_average_is_never_slower_than_the_run(decay: float) -> None:
    """Whatever the decay: what was before a run is forgotten in it, and parameters that move steadily are followed at
    a tenth of the run's length, at most."""
    steps = 84
    average, params = (nnx.State({"x": jnp.asarray(value)}) for value in (1000.0, 0.0))
    for step in range(1, steps + 1):
        params = nnx.State({"x": jnp.asarray(float(step))})
        average = _averaged(average, params, decay, jnp.asarray(step), 1)
    behind = steps - float(np.asarray(average["x"]))
    assert 0 < behind < steps / 8

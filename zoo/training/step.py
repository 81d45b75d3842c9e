"""The compiled step: one program that trains what the rules train and touches nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from zoo.data.augment import Augment, augment, identity
from zoo.layers import statistics_of
from zoo.models.model import Model
from zoo.models.task.objective import total_loss
from zoo.registry.spec import Preprocess
from zoo.training.optimizers import OwnOptimizer
from zoo.training.points import OPTIMIZERS
from zoo.training.rules import Assignment

Batch = Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything a step changes, and so everything a checkpoint must hold.

    Attributes:
        params: what trains. mutable: running statistics and random streams. opt_state: the optimizer's.
        ema: moving average of `params`, or None. step: steps taken, int32 ().
    """

    params: nnx.State
    mutable: nnx.State
    opt_state: Any
    ema: nnx.State | None
    step: Array


@dataclass(frozen=True)
class Program:
    """A compiled step with what it does not change.

    Attributes:
        run: `(state, frozen, batch, key) -> (state, {"loss", "grad_norm"})`; the given state is used up.
        frozen: parameters that do not train. graphdef: the model in training mode.
    """

    run: Callable[[TrainState, nnx.State, Batch, Array], tuple[TrainState, dict[str, Array]]]
    frozen: nnx.State
    graphdef: nnx.GraphDef[Model]


def optimizer(
    rate: optax.ScalarOrSchedule,
    *,
    weight_decay: float,
    clip: float | None,
    accumulate: int,
    assignment: Assignment,
    row: str | OwnOptimizer = "adamw",
) -> optax.GradientTransformation:
    """An optimizer as the masked update of an assignment.

    The clip's norm is over the trained parameters alone. Biases and norms, of one axis, are not decayed. With
    `accumulate`, the gradients of so many batches are averaged into one update.

    Args:
        row: a name of `zoo.training.optimizers`, or a function of the rate that brings its own weight decay.
    """
    chain = [] if clip is None else [optax.clip_by_global_norm(clip)]
    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    if isinstance(row, str):
        chain.append(OPTIMIZERS[row](rate, optax.add_decayed_weights(weight_decay, decayed)))
    else:
        chain.append(row(rate))
    transform = assignment.transform(optax.chain(*chain))
    return optax.MultiSteps(transform, accumulate).gradient_transformation() if accumulate > 1 else transform


@contextmanager
def lenient() -> Iterator[None]:
    """JAX's own promotion of dtypes and ranks, which optax counts on, also where a strict one is asked for."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def seen_size(preprocess: Preprocess, shape: tuple[int, ...]) -> tuple[int, int]:
    """What the net sees of a batch of images of this shape: a letterbox whole, else the centre."""
    return shape[1:3] if preprocess.crop_mode == "letterbox" else preprocess.size  # type: ignore[return-value]


def batch_loss(model: Model, batch: Batch) -> Array:
    """Mean loss over the images of the batch that are valid, (). Batch statistics are of these images alone."""
    with statistics_of(batch["valid"]):
        losses = total_loss(model.adapter, model.adapter.loss_terms(model.forward(batch), batch))
    valid = batch["valid"].astype(losses.dtype)
    return jnp.sum(losses * valid) / jnp.maximum(jnp.sum(valid), 1)


def start(
    model: Model,
    assignment: Assignment,
    transform: optax.GradientTransformation,
    *,
    augmentation: Augment | None,
    ema: float,
    norm_statistics: bool,
    remat: bool = False,
    accumulate: int = 1,
) -> tuple[TrainState, Program]:
    """The first state of a phase and its compiled step.

    Args:
        augmentation: what happens to images on the device; None only crops the centre.
        ema: decay of the moving average of the parameters, 0 for none.
        norm_statistics: whether normalisation layers that train use the batch's statistics and update the running
            ones; otherwise they keep the pretrained ones.
        remat: see `zoo.models.backbone.run_stages`.
        accumulate: steps in one update of `transform`; the moving average moves with the updates.
    """
    model.remat = remat
    model.freeze(assignment.frozen_modules)
    model.train()
    if not norm_statistics:
        model.backbone.set_attributes(use_running_average=True, raise_if_not_found=False)
    graphdef, *parts = nnx.split(model, assignment.trains, (nnx.BatchStat, nnx.RngState), ...)
    params, mutable, frozen = parts
    preprocess, moves = model.card.preprocess, model.adapter.training.moves
    model.eval()
    model.remat = False
    # The step gives its state's memory away, so it must not be the model's own.
    params, mutable = jax.tree.map(jnp.copy, (params, mutable))
    with lenient():
        opt_state = transform.init(params)
    average = jax.tree.map(jnp.copy, params) if ema else None
    state = TrainState(params, mutable, opt_state, average, jnp.zeros((), jnp.int32))

    def run(state: TrainState, frozen: nnx.State, batch: Batch, key: Array) -> tuple[TrainState, dict[str, Array]]:
        if "image" in batch:
            key = jax.random.fold_in(key, state.step)
            size = seen_size(preprocess, batch["image"].shape)
            batch = augment(augmentation, key, batch, size, moves) if augmentation else identity(batch, size, moves)

        def loss(params: nnx.State) -> tuple[Array, nnx.State]:
            live = nnx.merge(graphdef, params, state.mutable, frozen, copy=True)
            value = batch_loss(live, batch)
            return value, nnx.state(live, (nnx.BatchStat, nnx.RngState))

        (value, mutable), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        with lenient():
            updates, opt_state = transform.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        average = None if state.ema is None else _averaged(state.ema, params, ema, state.step + 1, accumulate)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients)}
        return TrainState(params, mutable, opt_state, average, state.step + 1), metrics

    return state, Program(jax.jit(run, donate_argnums=0), frozen, graphdef)


def fitting_ema(decay: float, updates: int) -> float:
    """Return the decay of an EMA that a phase is long enough for: `decay`, or less, in hundredths, for a short phase.

    An EMA of decay d averages about the last 1 / (1 - d) updates, which a phase must have. The warm-up of the decay in
    `_averaged` stays below this bound anyway: the lower decay states what is in effect, and changes the average only
    in a phase of a single update.
    """
    if not decay or updates * (1 - decay) > 1 - 1e-9:
        return decay
    return int(100 * (1 - 1 / updates)) / 100 if updates > 1 else 0.0


def _averaged(average: nnx.State, params: nnx.State, decay: float, steps: Array, accumulate: int) -> nnx.State:
    """Return the EMA of the parameters after `steps` steps."""
    # Warm-up: the decay grows with the number of updates u as u / (9 + u), from 0.1 on, as TensorFlow's
    # ExponentialMovingAverage does with `num_updates`. With a constant decay d, the initial parameters would dominate
    # the average for the first 1 / (1 - d) updates. With accumulation, only every `accumulate`-th step is an update;
    # between two updates the average must not move.
    updates = (steps // accumulate).astype(jnp.float32)
    keep = jnp.where(steps % accumulate == 0, jnp.minimum(decay, updates / (9 + updates)), 1.0)
    return jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, average, params)


def install(model: Model, state: TrainState, *, averaged: bool = True) -> None:
    """Put a state's parameters and statistics into the model; the moving average where there is one."""
    params = state.ema if averaged and state.ema is not None else state.params
    nnx.update(model, *jax.tree.map(jnp.copy, (params, state.mutable)))
    model.eval()

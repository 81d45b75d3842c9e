"""The compiled training step: one program that updates what the rules train, and nothing else."""

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
    """Everything that a step changes, and so everything that a checkpoint must hold.

    Attributes:
        params: the trained parameters.
        mutable: running statistics and random streams.
        opt_state: state of the optimizer.
        ema: EMA of `params`, or None.
        step: number of steps taken, int32 ().
    """

    params: nnx.State
    mutable: nnx.State
    opt_state: Any
    ema: nnx.State | None
    step: Array


@dataclass(frozen=True)
class Program:
    """A compiled step, with everything that it does not change.

    Attributes:
        run: `(state, frozen, batch, key) -> (state, {"loss", "grad_norm"})`. The given state is donated.
        frozen: the parameters that do not train.
        graphdef: the model in training mode.
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
    """Return an optimizer that updates only what an assignment trains.

    Args:
        rate: learning rate, or its schedule over updates.
        weight_decay: weight decay of kernels. Parameters of one axis (biases, norms) are not decayed.
        clip: largest global norm of the trained parameters' gradients; None for no clipping.
        accumulate: number of batches whose gradients are averaged into one update.
        assignment: what trains.
        row: the name of an optimizer (`zoo list optimizers`), or a function of the rate with its own weight decay.
    """
    chain = [] if clip is None else [optax.clip_by_global_norm(clip)]
    decayed = partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    if isinstance(row, str):
        chain.append(OPTIMIZERS[row](rate, optax.add_decayed_weights(weight_decay, decayed)))
    else:
        chain.append(row(rate))
    transform = assignment.transform(optax.chain(*chain))
    # Accumulation is outermost: clipping, moments and schedule see one averaged gradient for each update, and count
    # updates, not batches. Between updates, MultiSteps returns zeros.
    return optax.MultiSteps(transform, accumulate).gradient_transformation() if accumulate > 1 else transform


@contextmanager
def lenient() -> Iterator[None]:
    """Allow JAX's standard promotion of dtypes and ranks, which optax relies on, even where strict mode is set."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def seen_size(preprocess: Preprocess, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the size that the network gets of images (b, h, w, c): all of a letterbox, else the central crop."""
    return shape[1:3] if preprocess.crop_mode == "letterbox" else preprocess.size  # type: ignore[return-value]


def batch_loss(model: Model, batch: Batch) -> Array:
    """Return the mean loss over the valid images of a batch, (). Batch statistics are computed from them only."""
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
    """Return the first state of a phase and its compiled step.

    Args:
        model: the model; it is left in evaluation mode, and its arrays are not donated.
        assignment: what trains.
        transform: the optimizer.
        augmentation: augmentation on the device; None for the central crop only.
        ema: decay of the EMA of the parameters, 0 for none.
        norm_statistics: whether batch norms that train use the batch's statistics and update the running ones;
            otherwise they use the pretrained ones.
        remat: whether to rematerialise the backbone's stages, see `zoo.models.backbone.run_stages`.
        accumulate: steps in one update of `transform`. The EMA is updated together with the parameters.
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
    # The step donates the buffers of its state, so they must not be the model's own.
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
    """Copy the parameters and statistics of a state into the model, and put it in evaluation mode.

    Args:
        model: the model.
        state: the state.
        averaged: whether to use the EMA of the parameters, if there is one.
    """
    params = state.ema if averaged and state.ema is not None else state.params
    nnx.update(model, *jax.tree.map(jnp.copy, (params, state.mutable)))
    model.eval()

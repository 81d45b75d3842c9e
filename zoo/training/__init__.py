"""Training: plans, the compiled step, the loop, the activation cache, checkpoints and the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zoo.data import Dataset
from zoo.data.augment import Augment
from zoo.data.check import Policy, checked
from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.models.saved import identity
from zoo.models.store import save
from zoo.numbers import TRAINING, check_numbers
from zoo.training.batches import Data, check_moved, named_after, relabelled, splits, training_splits
from zoo.training.evaluation import Evaluation, as_model, evaluate
from zoo.training.loop import fit, stopping
from zoo.training.plan import HEAD_RATE, Phase, make_plan
from zoo.training.reads import moves_images, validate
from zoo.training.recipe import OwnRecipe
from zoo.training.rules import Rule, assign, check_multipliers
from zoo.training.run import (
    Run,
    abandon,
    finish,
    prepare_folder,
    stamp,
    versions,
    write_history,
    write_tensorboard,
)
from zoo.training.session import Event, Recipe, Session, check_recipe

__all__ = ["Augment", "Evaluation", "Phase", "Run", "as_model", "evaluate", "train"]


def train(
    model: Model,
    data: Data,
    *,
    plan: str | Sequence[Phase] | None = None,
    rules: Sequence[Rule] | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    format: str | None = None,
    val_fraction: float = 0.2,
    augment: Augment | str = "auto",
    annotations: Policy = "fix",
    batch_norm: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    weight_decay: float | None = None,
    clip: float | None = 1.0,
    accumulate: int = 1,
    ema: float | None = None,
    cache: bool = True,
    remat: bool = False,
    patience: int | None = None,
    checkpoint_seconds: float = 60.0,
    figures: bool = True,
    show: Callable[[Session], Callable[[Event], None]] | None = None,
) -> Run:
    """Train a model on data, in place, and write a run folder.

    Args:
        data: a folder or file of any format that `zoo.data.formats()` lists, or data sets by split. A part named
            `val` is validated on, else a stratified share of the training data; a part named `test` only at the end.
        plan: `head`, `last:N`, `all`, `all:DECAY`, `bitfit`, or several of them joined by `+`; or phases. What is
            not given of plan, epochs, lr, batch_size, weight_decay and ema is the task's own (`Adapter.recipe`), else
            head+all, 10, by what trains, 32, 0.01 and 0. Some tasks take more epochs where images are few.
        rules: `(pattern, multiplier or None)` rows of one's own in place of a plan (see `zoo.training.rules`).
        epochs: over all phases. lr: peak learning rate of the last phase; without it, by what trains.
        out: the run folder, which must be empty or new; `runs/<data>-<backbone>-<number>` without it.
        resume: go on with the run in `out` from its last whole checkpoint.
        format: the data's format, where its layout does not tell.
        val_fraction: share of the training data to validate on, where there is no part for it.
        augment: what happens to images in phases that train the backbone: `auto` (crops and mirror images), `none`,
            or an `Augment`. Phases that train only the head see every image as it is, so that features are cached.
        annotations: what becomes of faulty boxes and masks, see `zoo.data.check`: `fix`, `drop` or `error`.
        batch_norm: `frozen` keeps the pretrained running statistics of the backbone, `batch` uses and updates them
            from the batches; `auto` is `frozen` for pretrained weights, `batch` for random ones.
        batch_size: images in a step. accumulate: batches averaged into one update.
        weight_decay, clip: of AdamW; the largest norm of the trained parameters' gradients, or None.
        ema: decay of a moving average of the parameters, which is then what is evaluated and kept; 0 for none.
        cache: keep the features of a frozen backbone on disk.
        remat: compute each stage of the backbone anew in the backward pass, which takes less memory and more time.
        patience: epochs without a better figure after which a phase ends.
        checkpoint_seconds: time between two checkpoints. figures: draw the run's pictures.
        show: makes a display of what happens; progress is shown as plain lines or a bar without it.
    Returns:
        The run: its model is the best epoch's, by the task's primary figure.
    Raises:
        ConfigError, DataError, RunError: before the first step, for anything that cannot work.
    """
    began = time.monotonic()
    own = OwnRecipe.of(model.adapter)
    plan = own.plan if plan is None else plan
    batch_size = own.batch_size if batch_size is None else batch_size
    weight_decay = own.weight_decay if weight_decay is None else weight_decay
    ema = own.ema if ema is None else ema
    check_numbers({"epochs": epochs, "lr": lr, "val_fraction": val_fraction}, TRAINING)
    check_multipliers(rules or ())
    recipe = Recipe(
        batch_size=batch_size,
        seed=seed,
        weight_decay=weight_decay,
        clip=clip,
        accumulate=accumulate,
        ema=ema,
        augmentation=_augmentation(augment, own.augment),
        statistics=_statistics(batch_norm, model),
        cache=cache,
        remat=remat,
        patience=patience,
        checkpoint_seconds=checkpoint_seconds,
    )
    check_recipe(recipe)
    parts, said = checked(splits(data, format, model.adapter.targets_from), annotations)
    pool, *others = training_splits(parts, val_fraction, seed)
    if "val" not in parts:
        said = (f"the data has no validation split: {len(others[0])} of its images are set aside for it.", *said)
    if "test" in parts:
        others.append(parts["test"])
    train_set, val_set, *test = (relabelled(part, model, by_position=True) for part in (pool, *others))
    if model.adapter.fixed_backbone:
        model.adapter.fitted(train_set)  # what it refuses says more than a plan for a head that cannot train
    batches = -(-len(train_set) // batch_size)
    epochs = own.epochs_for(batches / accumulate) if epochs is None else epochs
    lr = own.lr if lr is None and rules is not None else lr
    phases = make_plan(model, plan, epochs, lr, rules, head_rate=own.lr or HEAD_RATE)
    for phase in phases:
        if model.adapter.fixed_backbone and not assign(model, phase.rules).backbone_frozen:
            raise ConfigError(
                f"phase {phase.name} trains the backbone, which {model.card.adapter} must not: use plan head."
            )
        assign(model, phase.rules)
        if phase.epochs * batches < accumulate:
            raise ConfigError(
                f"accumulate is {accumulate}, and phase {phase.name} has only {phase.epochs * batches} batches: it "
                "would never update anything. Use a smaller batch_size, fewer accumulated batches or more epochs."
            )
    named_after(model, pool)
    train_set, val_set, *test = (relabelled(part, model) for part in (pool, *others))
    model.adapter, cut = model.adapter.fitted(train_set).sized([train_set, val_set, *test])
    if any(moves_images(model, assign(model, phase.rules), recipe) for phase in phases):
        assert recipe.augmentation is not None
        check_moved(model, train_set, recipe.augmentation)
    folder = Path(out) if out is not None else _new_folder(train_set.root.name, model.card.backbone)
    asked = {
        "model": identity(model),
        "data": {"root": str(train_set.root.resolve()), "train": train_set.fingerprint(), "val": val_set.fingerprint()},
        "plan": [asdict(phase) for phase in phases],
        "recipe": {k: v for k, v in asdict(recipe).items() if k != "checkpoint_seconds"},
    }
    facts = {"versions": versions(), "plugins": {k: asdict(v) for k, v in model.card.plugins.items()}}
    prepare_folder(folder, {"asked": asked, **facts, "started": stamp()}, resume=resume)
    if resume and (folder / "metrics.json").is_file():
        return Run.open(folder)
    model.card = replace(model.card, notes=())  # they tell of what the model started from
    session = Session(
        model,
        train_set,
        val_set,
        phases,
        recipe,
        folder,
        notes=(*_notes(train_set, val_set, *test), *said, *filter(None, [cut])),
    )
    display = (show or _default_display())(session)
    try:
        with stopping(session):
            for event in fit(session, resume=resume):
                display(event)
    except Exception:
        if not session.step and not resume:
            abandon(folder)
        raise
    finally:
        session.closing()
    return _finish(session, test, began, figures)


def _notes(*datasets: Dataset) -> list[str]:
    """What there is to say about the data, each thing once."""
    return list(dict.fromkeys(note for dataset in datasets for note in dataset.notes))


def _augmentation(augment: Augment | str, own: Mapping[str, Any]) -> Augment | None:
    if isinstance(augment, Augment):
        return augment
    if augment not in ("auto", "none"):
        raise ConfigError(f"augment is {augment!r}; accepted: auto, none, or a zoo.training.Augment.")
    return Augment(**own) if augment == "auto" else None


def _statistics(batch_norm: str, model: Model) -> bool:
    if batch_norm not in ("auto", "frozen", "batch"):
        raise ConfigError(f"batch_norm is {batch_norm!r}; accepted: auto, frozen, batch.")
    return batch_norm == "batch" or (batch_norm == "auto" and not model.card.weights)


def _new_folder(data: str, backbone: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{data}-{backbone}-{number}").exists():
        number += 1
    return folder


def _default_display() -> Callable[[Session], Callable[[Event], None]]:
    from zoo.training.progress import display

    return display


def _finish(session: Session, test: Sequence[Dataset], began: float, figures: bool) -> Run:
    """The best model's figures, on the validation data and on test data where there are any, and the run's files."""
    model, folder = session.model, session.folder
    assert session.best is not None
    # The caches hold features of the backbone as it is now; the best epoch's may be an earlier one.
    cache = session.caches.get("val") if session.best[0]["epoch"] > session.cached_after else None
    evaluation = validate(model, session.val, cache, session.recipe.batch_size)
    metrics = {
        **evaluation.metrics,
        "best_epoch": session.best[0]["epoch"],
        "epochs": len(session.history),
        "steps": session.step,
        "seconds": round(time.monotonic() - began, 1),
        "train_images": len(session.train),
        "val_images": len(session.val),
    }
    for part in test:
        metrics["test"] = validate(model, part, None, session.recipe.batch_size).metrics
    # Only now: a model of another card is another program to JAX, and would be compiled anew to be evaluated.
    model.card = replace(model.card, new_head=False)
    save(model, folder)
    write_history(folder, session.history)
    write_tensorboard(folder, session.history)
    run = Run(folder, model, metrics, session.history)
    drawn = _draw(session, evaluation) if figures else []
    finish(run, drawn)
    return run


def _draw(session: Session, evaluation: Evaluation) -> list[Path]:
    from zoo.report import curves

    folder = session.folder / "figures"
    folder.mkdir(exist_ok=True)
    primary = session.model.adapter.primary
    drawn = curves(session.history, folder / "curves.png", primary if primary in session.history[0] else "")
    return [drawn, *session.model.adapter.figures(evaluation, folder)]

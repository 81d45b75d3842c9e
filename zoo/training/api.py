"""`zoo.train`: from a model, data and options to a finished run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zoo.data import Dataset
from zoo.models.model import Model
from zoo.models.store import save
from zoo.training.config import OPTIONS, Recipe, TrainConfig
from zoo.training.data import Data
from zoo.training.evaluation import Evaluation, evaluate_source
from zoo.training.loop import fit, stopping
from zoo.training.options import configured
from zoo.training.prepare import Splits, fit_to_data, make_phases, run_folder
from zoo.training.run import Run, abandon, finish, write_history, write_tensorboard
from zoo.training.session import Event, Session
from zoo.training.sources import evaluation_source


@configured(TrainConfig, OPTIONS)
def train(model: Model, data: Data, config: TrainConfig) -> Run:
    """Train a model on data, in place, and write a run folder.

    Args:
        data: A folder or file of any format that `zoo.data.formats()` lists, or data sets by split. A split named
            `val` is validated on, else a stratified share of the training data; a split named `test` only at the end.
        config: The options below as one value. Options given beside it replace its own.
        {options}

    Returns:
        The run. Its model is the best epoch's, by the task's primary metric.

    Raises:
        ConfigError, UnknownNameError, DataError, RunError: before the first step, for anything that cannot work.
    """
    began = time.monotonic()
    recipe = Recipe.of(model.adapter, config, pretrained=bool(model.card.weights))
    read = Splits.read(data, recipe, model)
    # Only for its errors: the model is named after the data once nothing else can fail.
    trial = read.relabelled(model, by_position=True)
    if model.adapter.training.backbone == "fixed":
        model.adapter.fitted(trial.train)  # what it refuses says more than a plan for a head that cannot train
    phases = make_phases(model, trial.train, recipe)
    fitted = fit_to_data(model, read, phases, recipe)
    folder = run_folder(model, fitted, phases, recipe)
    if recipe.resume and (folder / "metrics.json").is_file():
        return Run.open(folder)
    model.card = replace(model.card, notes=())  # they tell of what the model started from
    session = Session(model, fitted.train, fitted.val, phases, recipe, folder, notes=fitted.notes)
    _fit(session)
    return _finish(session, fitted.test, began)


def _fit(session: Session) -> None:
    """Train, and show what happens. A training that never began leaves no folder."""
    recipe = session.recipe
    display = (recipe.show or _default_display())(session)
    try:
        with stopping(session):
            for event in fit(session, resume=recipe.resume):
                display(event)
    except Exception:
        if not session.step and not recipe.resume:
            abandon(session.folder)
        raise
    finally:
        session.closing()


def _default_display() -> Callable[[Session], Callable[[Event], None]]:
    from zoo.training.progress import display

    return display


def _finish(session: Session, test: Dataset | None, began: float) -> Run:
    """Evaluate the best model on validation and test data, and write the files of the run."""
    model, folder, recipe = session.model, session.folder, session.recipe
    assert session.best is not None
    # The caches hold features of the backbone as it is now; the best epoch's may be an earlier one.
    cache = session.caches.get("val") if session.best[0]["epoch"] > session.cached_after else None
    evaluation = evaluate_source(model, evaluation_source(model, session.val, recipe.batch_size, cache))
    metrics = {
        **evaluation.metrics,
        "best_epoch": session.best[0]["epoch"],
        "epochs": len(session.history),
        "steps": session.step,
        "seconds": round(time.monotonic() - began, 1),
        "train_images": len(session.train),
        "val_images": len(session.val),
    }
    if test is not None:
        metrics["test"] = evaluate_source(model, evaluation_source(model, test, recipe.batch_size)).metrics
    # Only now: a model of another card is another program to JAX, and would be compiled anew to be evaluated.
    model.card = replace(model.card, new_head=False)
    save(model, folder)
    write_history(folder, session.history)
    write_tensorboard(folder, session.history)
    run = Run(folder, model, metrics, session.history)
    drawn = _draw(session, evaluation) if recipe.plots else []
    finish(run, drawn)
    return run


def _draw(session: Session, evaluation: Evaluation) -> list[Path]:
    from zoo.report import curves

    folder = session.folder / "plots"
    folder.mkdir(exist_ok=True)
    primary = session.model.adapter.primary
    drawn = curves(session.history, folder / "curves.png", primary if primary in session.history[0] else "")
    return [drawn, *session.model.adapter.plots(evaluation, folder)]

"""`zoo.train`: from a model, data and options to a finished run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from zoo.data import Dataset
from zoo.data.damage import Later, naming_all
from zoo.errors import ZooError
from zoo.models.model import Model
from zoo.models.store import FILE
from zoo.training.config import OPTIONS, Recipe, TrainConfig
from zoo.training.data import Data
from zoo.training.evaluation import Evaluation, evaluate_source
from zoo.training.lock import locked, require_usable
from zoo.training.loop import fit, stopping
from zoo.training.memory import ERRORS, is_exhausted, out_of_memory
from zoo.training.options import configured
from zoo.training.prepare import Splits, begin, fit_to_data, folder_for, make_phases, with_cache
from zoo.training.run import (
    TRAINED,
    Run,
    abandon,
    close,
    finished,
    write_history,
    write_metrics,
    write_tensorboard,
    writing,
)
from zoo.training.saving import write_best
from zoo.training.session import Event, Session
from zoo.training.sources import evaluation_source


@configured(TrainConfig, OPTIONS)
def train(model: Model, data: Data, config: TrainConfig) -> Run:
    """Train a model on data, in place, and write a run directory.

    Args:
        model: The model.
        data: A folder or file of any format that `zoo list formats` shows, or datasets by split. Validation uses the
            split `val`, else a stratified share of the training data. The split `test` is evaluated once, at the end.
        config: The options below as one value. Keywords override it.
        {options}

    Returns:
        The run. Its model is that of the best epoch, by the task's primary metric.

    Raises:
        ConfigError: An option or a combination of options cannot work. All errors but the last kind come before the
            first step.
        UnknownNameError: A name is unknown; the message has the nearest ones.
        DataError: The data cannot be read or does not suit the task.
        RunError: The run directory cannot be used, or the loss is no longer finite.
    """
    began = time.monotonic()
    asked = Recipe.of(model.adapter, config, pretrained=bool(model.card.weights))
    read = Splits.read(data, asked, model)
    # A trial, for its errors only: the model takes the data's class names once nothing else can fail.
    trial = read.relabelled(model, by_position=True)
    if model.adapter.training.backbone == "fixed":
        model.adapter.fitted(trial.train)  # its errors are more specific than those of the plan
    phases = make_phases(model, trial.train, asked)
    # A run may be resumed where the cache can be written, or no longer: its configuration has what was asked for.
    recipe, uncached = with_cache(model, phases, asked)
    fitted = fit_to_data(model, read, phases, recipe)
    folder = folder_for(fitted, model, recipe)
    require_usable(folder, resume=recipe.resume)
    if recipe.resume and finished(folder):
        begin(folder, model, fitted, phases, asked)
        return Run.open(folder)
    with locked(folder):
        changed = begin(folder, model, fitted, phases, asked)
        model.card = replace(model.card, notes=())  # the notes describe the weights that the model started from
        session = Session(model, fitted.train, fitted.val, phases, recipe, folder)
        session.notes = (*uncached, *fitted.notes, *filter(None, [changed]))
        if not fitted.decoded:
            session.later = Later(fitted.all[1:])
        with naming_all(fitted.all):
            _fit(session)
        return _finish(session, fitted.test, began)


def _fit(session: Session) -> None:
    """Train and show the events. A training that fails before its first step leaves no folder."""
    recipe = session.recipe
    display = (recipe.show or _default_display())(session)
    try:
        with stopping(session):
            for event in fit(session, resume=recipe.resume):
                display(event)
    except BaseException as error:
        began = session.step or session.rollbacks or recipe.resume
        if not began and isinstance(error, Exception):
            abandon(session.folder)
        with suppress(Exception):  # the error that ended the training matters more
            write_best(session)
        if isinstance(error, ERRORS) and is_exhausted(error):
            raise out_of_memory(session) from error
        raise
    finally:
        if session.later:
            session.later.stop()
        session.closing()


def _default_display() -> Callable[[Session], Callable[[Event], None]]:
    from zoo.training.progress import display

    return display


def _finish(session: Session, test: Dataset | None, began: float) -> Run:
    """Evaluate the best model on validation and test data, and write the remaining files of the run."""
    try:
        return _completed(session, test, began)
    except ZooError as error:
        error.args = (
            f"{error} Training has ended and {session.folder / FILE} is the best model; only final metrics or plots "
            "are missing. Repeat the command with --resume to add them.",
        )
        raise


def _completed(session: Session, test: Dataset | None, began: float) -> Run:
    model, folder, recipe = session.model, session.folder, session.recipe
    assert session.best is not None
    # The caches hold features of the backbone since epoch `cached_after`; the best model may have an earlier one.
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
    # Not earlier: the card is static to JAX, so that a changed one would compile the evaluation again.
    model.card = replace(model.card, new_head=False)
    write_history(folder, session.history)
    write_tensorboard(folder, session.history)
    run = Run(folder, model, metrics, session.history)
    write_metrics(run)
    drawn = _draw(session, evaluation) if recipe.plots else []
    # The list of plots says that the run is finished.
    run.metrics["plots"] = [str(path.relative_to(folder)) for path in drawn]
    write_metrics(run)
    (folder / TRAINED).unlink(missing_ok=True)
    close(folder)
    return run


def _draw(session: Session, evaluation: Evaluation) -> list[Path]:
    from zoo.report import curves

    folder = session.folder / "plots"
    primary = session.model.adapter.primary
    with writing(folder):
        folder.mkdir(exist_ok=True)
        drawn = curves(session.history, folder / "curves.png", primary if primary in session.history[0] else "")
        return [drawn, *session.model.adapter.plots(evaluation, folder)]

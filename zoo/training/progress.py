"""Display of a training: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from zoo.text import printable
from zoo.training.session import Event, Session


def display(session: Session) -> Callable[[Event], None]:
    """Return a function that shows events: a progress bar if standard error is a terminal, else plain lines."""
    return _bar(session) if sys.stderr.isatty() else _lines(session)


def epoch_line(row: dict[str, Any], primary: str) -> str:
    """Return the line of an epoch: losses, primary metric and speed."""
    losses = f"train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
    metric = f"  {primary} {row[primary]:.4f}" if primary in row else ""
    metrics = f"{losses}{metric}  {row['images_per_second']:.0f} img/s"
    return f"epoch {row['epoch']:>3}  {row['phase']:<8} {metrics}"


def phase_line(event: dict[str, Any]) -> str:
    """Return the line of a phase: its length and how many parameters it trains."""
    how = ", on cached features" if event["cached"] else ""
    if event["lowered"]:
        how += f", EMA decay lowered to {event['ema']:g} to suit the number of updates"
    share = event["trained"] / event["parameters"]
    return (
        f"phase {event['name']}: {event['epochs']} epochs of {event['batches']} steps, "
        f"{event['trained']:,} of {event['parameters']:,} parameters train ({share:.1%}){how}"
    )


def _lines(session: Session) -> Callable[[Event], None]:
    primary, began = session.model.adapter.primary, time.monotonic()
    last_line = 0.0

    def say(text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def features(done: int, total: int) -> None:
        nonlocal last_line
        now = time.monotonic()
        if done == total or now - last_line > 10:
            last_line = now
            say(f"features: {done} of {total} images and augmented views")

    def show(event: Event) -> None:
        nonlocal last_line
        step, what = event
        if what["kind"] == "note":
            say(what["text"])
        elif what["kind"] == "phase":
            say(phase_line(what))
        elif what["kind"] == "epoch":
            say(epoch_line(what, primary) + f"  {time.monotonic() - began:.0f} s")
        elif time.monotonic() - last_line > 30:
            last_line = time.monotonic()
            say(f"step {step}  loss {float(what['loss']):.4f}  {time.monotonic() - began:.0f} s")

    session.features = features
    return show


def _bar(session: Session) -> Callable[[Event], None]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, primary, size = Console(stderr=True), session.model.adapter.primary, session.recipe.batch_size
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]}", TimeRemainingColumn())
    bar = Progress(*(TextColumn(c) if isinstance(c, str) else c for c in columns), console=console, transient=True)
    bar.start()
    task = bar.add_task("preparing", total=None, rate="")
    began, first = time.monotonic(), 0

    def features(done: int, total: int) -> None:
        speed = done / max(time.monotonic() - began, 1e-9)
        bar.update(task, description="features", completed=done, total=total, rate=f"{speed:.0f} img/s")
        if done == total:
            bar.update(task, description="training")

    def show(event: Event) -> None:
        nonlocal began, first
        step, what = event
        if what["kind"] == "note":
            console.print(printable(what["text"]), markup=False, highlight=False)
        elif what["kind"] == "phase":
            began, first = time.monotonic(), step
            bar.reset(
                task, total=what["epochs"] * what["batches"], description=escape(printable(what["name"])), rate=""
            )
            console.print(printable(phase_line(what)), markup=False, highlight=False)
        elif what["kind"] == "epoch":
            console.print(printable(epoch_line(what, primary)), markup=False, highlight=False)
        else:
            speed = (step - first) * size / max(time.monotonic() - began, 1e-9)
            bar.update(task, completed=step - first, rate=f"{speed:.0f} img/s")

    session.features = features
    session.closing = bar.stop
    return show

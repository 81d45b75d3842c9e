"""Checkpoints are exact or refused, and a resumed run ends bit for bit as one that was never stopped."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plugin_kit
import pytest
from flax import nnx
from training_kit import draw_splits, installed, own_cache, tinynet  # noqa: F401  (fixtures)

import zoo
from zoo.errors import RunError
from zoo.models.model import Model
from zoo.training import Augment, Phase, Run
from zoo.training.checkpoint import MANIFEST, Checkpoints
from zoo.training.checkpoint import read as read_arrays
from zoo.training.plans import preset
from zoo.training.session import Event, Interrupted, Session


def arrays() -> dict[str, Any]:
    return {
        "kernel": jnp.arange(12.0).reshape(3, 4) / 7,
        "half": jnp.asarray([1.5, -0.0], jnp.bfloat16),
        "step": jnp.int32(7),
        "key": jax.random.key(3),
        "nothing": None,
        "empty": (),
    }


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    """Two checkpoints, of steps 3 and 10."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (3, 10):
        checkpoints.save(step, arrays(), {"step": step})
    return checkpoints


def test_what_is_read_is_what_was_saved(kept: Checkpoints):
    target, position, passed = kept.latest() or pytest.fail("no checkpoint")
    assert (position, passed, target.name) == ({"step": 10}, [], "00000010")
    like = jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf * 0, arrays())
    found = read_arrays(target, like)
    assert jax.tree.structure(found) == jax.tree.structure(arrays())
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(arrays()), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_only_the_newest_are_kept(kept: Checkpoints):
    kept.save(12, arrays(), {"step": 12})
    assert kept.steps() == [10, 12]
    assert sorted(path.name for path in kept.folder.iterdir()) == ["00000010", "00000012"]


def files_of(kept: Checkpoints, step: int) -> list[Path]:
    return [p for p in (kept.folder / f"{step:08d}").rglob("*") if p.is_file() and p.stat().st_size]


def test_a_flipped_bit_anywhere_is_seen_and_the_older_one_used(kept: Checkpoints):
    for file in files_of(kept, 10):
        good = file.read_bytes()
        for at in {0, len(good) // 3, len(good) // 2, len(good) - 1}:
            file.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
            _, position, passed = kept.latest() or pytest.fail("no checkpoint")
            assert position == {"step": 3} and "checkpoint 10 is damaged" in passed[0], (file, at)
        file.write_bytes(good)
    assert (kept.latest() or pytest.fail())[1] == {"step": 10}


def test_a_changed_place_is_seen(kept: Checkpoints):
    """Where training stands is as good as an array: a digit of it must not flip unseen."""
    manifest = kept.folder / "00000010" / MANIFEST
    text = manifest.read_text()
    assert text.count('"step": 10') == 2
    manifest.write_text(text.replace('"step": 10', '"step": 14'))
    assert "its manifest has changed" in (kept.latest() or pytest.fail())[2][0]


def test_a_missing_file_and_a_broken_manifest(kept: Checkpoints):
    manifest = kept.folder / "00000010" / MANIFEST
    manifest.write_text(manifest.read_text()[:50])
    assert "manifest cannot be read" in (kept.latest() or pytest.fail())[2][0]
    kept.save(10, arrays(), {"step": 10})
    next(p for p in files_of(kept, 10) if p.name != MANIFEST).unlink()
    assert "is missing" in (kept.latest() or pytest.fail())[2][0]


def test_what_was_never_finished_does_not_count(kept: Checkpoints):
    """Killed while it saved: orbax would take these for the latest step."""
    (kept.folder / "00000099").mkdir()
    (kept.folder / "00000098" / "arrays").mkdir(parents=True)
    (kept.folder / "notes").mkdir()
    assert kept.steps() == [3, 10] and (kept.latest() or pytest.fail())[2] == []
    kept.save(11, arrays(), {})
    assert sorted(path.name for path in kept.folder.iterdir()) == ["00000010", "00000011", "notes"]


def test_nothing_yet(tmp_path: Path):
    assert Checkpoints(tmp_path / "absent").latest() is None
    (tmp_path / "empty" / "5").mkdir(parents=True)
    assert Checkpoints(tmp_path / "empty").latest() is None


def test_all_damaged_is_an_error(kept: Checkpoints):
    for step in (3, 10):
        next(p for p in files_of(kept, step) if p.name != MANIFEST).unlink()
    with pytest.raises(RunError, match=r"no checkpoint in .* is intact: checkpoint 10 .*; checkpoint 3 "):
        kept.latest()


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {**a, "kernel": a["kernel"].astype(jnp.bfloat16)},
        lambda a: {**a, "kernel": a["kernel"].T},
        lambda a: {**a, "zusatz": a["kernel"]},
        lambda a: {name: value for name, value in a.items() if name != "half"},
    ],
    ids=["dtype", "shape", "more", "fewer"],
)
def test_another_models_arrays_are_refused(kept: Checkpoints, change: Callable[[dict], dict]):
    with pytest.raises(RunError, match="belongs to a different model or optimizer"):
        read_arrays((kept.latest() or pytest.fail())[0], change(arrays()))


def test_what_cannot_be_written_is_said(kept: Checkpoints, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.training.checkpoint.write_whole", full)
    with pytest.raises(RunError, match=r"step 11 could not be written .*No space left.*--resume"):
        kept.save(11, arrays(), {})
    assert kept.steps() == [3, 10] and not (kept.folder / "00000011").exists()


# Resuming --------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"epochs": 4, "batch_size": 8, "plots": False, "ema": 0.9, "seed": 1}
"""Three batches an epoch, the last one not full; two epochs of the head, then two of everything."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_splits(tmp_path_factory.mktemp("drawn"), train=10, val=4)


def create() -> Model:
    return zoo.create("tinynet", "classifier", labels=("disc", "frame"), pretrained=False, dropout=0.3)


def train(data: Path, out: Path, **options: Any) -> Run:
    # Mirror images alone: random, and quick to compile.
    augment = Augment(scale=(1, 1), ratio=(1, 1), color=0)
    silent = {"show": lambda session: lambda event: None}
    return zoo.train(create(), data, out=out, augment=augment, **{**silent, **OPTIONS, **options})


def stopped_at(step: int) -> Callable[[Session], Callable[[Event], None]]:
    """A display that stops the training at a step, as SIGTERM does."""

    def show(session: Session) -> Callable[[Event], None]:
        def event(event: Event) -> None:
            if event[1]["kind"] == "step" and event[0] == step:
                session.stop = signal.SIGTERM

        return event

    return show


def values(model: nnx.Module) -> dict[tuple, bytes]:
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {path: np.asarray(v.get_value()).tobytes() for path, v in state}


def timeless(run: Run) -> tuple[list[dict], dict]:
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in run.history]
    return rows, {k: v for k, v in run.metrics.items() if k != "seconds"}


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(data, tmp_path_factory.mktemp("whole") / "run")


# In the head's phase, between the phases, in the middle of an epoch, at the end of one, at the very end.
@pytest.mark.parametrize("steps", [(1,), (3,), (4, 5), (6,), (8,), (12,)], ids=str)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    steps: tuple[int, ...], data: Path, tmp_path: Path, uninterrupted: Run
):
    for step in steps:
        with pytest.raises(Interrupted) as caught:
            train(data, tmp_path / "run", show=stopped_at(step), resume=step != steps[0])
        assert caught.value.number == signal.SIGTERM
        if step > 3:  # after the first epoch: the saved model counts as trained
            assert not zoo.load(tmp_path / "run").card.new_head
    run = train(data, tmp_path / "run", resume=True)
    assert values(run.model) == values(uninterrupted.model)
    assert timeless(run) == timeless(uninterrupted)


def test_stopped_while_features_are_computed(data: Path, tmp_path: Path, uninterrupted: Run):
    """Nothing was trained, but the folder stays this run's, and the features that are there are not computed again."""

    def show(session: Session) -> Callable[[Event], None]:
        session.features = lambda done, total: setattr(session, "stop", signal.SIGINT)
        return lambda event: None

    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=show)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "data.jsonl", "SHA256SUMS"}
    run = train(data, tmp_path / "run", resume=True)
    assert values(run.model) == values(uninterrupted.model) and timeless(run) == timeless(uninterrupted)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(data: Path, tmp_path: Path, uninterrupted: Run):
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=stopped_at(7), checkpoint_seconds=0)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoints.steps() == [6, 7]
    file = max(files_of(checkpoints, 7), key=lambda p: p.stat().st_size)
    file.write_bytes(bytes(file.stat().st_size))
    notes: list[str] = []

    def show(session: Session) -> Callable[[Event], None]:
        return lambda event: notes.append(event[1]["text"]) if event[1]["kind"] == "note" else None

    run = train(data, tmp_path / "run", resume=True, show=show)
    *_, damaged, resumed = [text for text in notes if "checkpoint" in text or "resumed" in text]
    assert "checkpoint 7 is damaged" in damaged and "an earlier one is used" in damaged
    assert resumed == "resumed at step 6, in epoch 2"
    assert values(run.model) == values(uninterrupted.model) and timeless(run) == timeless(uninterrupted)


def test_a_run_goes_on_where_the_cache_can_be_written_and_where_it_cannot(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The features are those of the backbone at the resumption, so the epoch that was best before is not among them."""
    (tmp_path / "file").write_text("")
    plan = [Phase(name, preset(create(), name), epochs, 1e-2) for name, epochs in (("all", 1), ("head", 2))]
    sessions: list[Session] = []
    cached: list[bool] = []

    def stopping_at(step: int) -> Callable[[Session], Callable[[Event], None]]:
        def show(session: Session) -> Callable[[Event], None]:
            sessions.append(session)
            stop = stopped_at(step)(session)

            def event(event: Event) -> None:
                stop(event)
                if event[1]["kind"] == "phase" and event[1]["name"] == "head":
                    cached.append(event[1]["cached"])

            return event

        return show

    for step, folder in ((4, "file/cache"), (7, "cache")):  # in the first two epochs of the head
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / folder))
        with pytest.raises(Interrupted):
            train(data, tmp_path / "run", plan=plan, show=stopping_at(step), resume=step != 4)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    run = train(data, tmp_path / "run", plan=plan, show=stopping_at(0), resume=True)
    assert cached == [False, True, False] and len(run.history) == 3
    assert sessions[1].cached_after == 1
    assert "features are not cached" in sessions[0].notes[0] and "not cached" not in "".join(sessions[1].notes)


def test_patience_is_counted_over_a_stop(data: Path, tmp_path: Path):
    options = {"plan": "head", "lr": 1e-30, "patience": 3, "epochs": 9, "ema": 0.0}
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=stopped_at(8), **options)  # two epochs without a better one
    run = train(data, tmp_path / "run", resume=True, **options)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 4}, "recipe.batch_size was 8 and is now 4"),
        ({"epochs": 5}, r"plan\.[01]\.epochs was"),
        ({"seed": 2}, "recipe.seed was 1 and is now 2"),
        ({"ema": 0.0}, "recipe.ema was 0.9 and is now 0.0"),
    ],
)
def test_resumed_with_other_options(data: Path, tmp_path: Path, options: dict, words: str):
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=stopped_at(1))
    with pytest.raises(RunError, match=rf"cannot be resumed: {words}"):
        train(data, tmp_path / "run", resume=True, **options)


def test_resumed_with_another_model_or_other_data(data: Path, tmp_path: Path):
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=stopped_at(1))
    other = zoo.create("tinynet", "classifier", labels=("disc", "frame"), pretrained=False, dropout=0.2)
    with pytest.raises(RunError, match=r"model\.adapter\.dropout was 0\.3 and is now 0\.2"):
        zoo.train(other, data, out=tmp_path / "run", resume=True, **OPTIONS)
    with pytest.raises(RunError, match=r"data have changed: 2 samples of val are new \(val/disc/"):
        train(draw_splits(tmp_path / "other", train=10, val=5), tmp_path / "run", resume=True)


def test_resumed_after_a_copy_to_another_place(data: Path, tmp_path: Path, uninterrupted: Run):
    """Same bytes in another folder, with new time stamps: the same data. A changed file is named."""
    with pytest.raises(Interrupted):
        train(data, tmp_path / "run", show=stopped_at(5))
    for name in ("moved", "changed", "fewer"):
        shutil.copytree(data, tmp_path / name / "data", copy_function=shutil.copyfile)
    image = tmp_path / "changed" / "data" / "train" / "disc" / "3.png"
    image.write_bytes(image.read_bytes() + b" ")
    (tmp_path / "fewer" / "data" / "val" / "frame" / "10.png").unlink()
    for name, words in [
        ("changed", r"the data have changed: 1 sample of train has changed \(train/disc/3.png\)\. Use the same data"),
        ("fewer", r"1 sample of val is missing \(val/frame/10.png\)"),
    ]:
        with pytest.raises(RunError, match=words):
            train(tmp_path / name / "data", tmp_path / "run", resume=True)
    run = train(tmp_path / "moved" / "data", tmp_path / "run", resume=True)
    assert values(run.model) == values(uninterrupted.model) and timeless(run) == timeless(uninterrupted)
    (run.folder / "SHA256SUMS").unlink()
    (run.folder / "data.jsonl").write_text("{}")
    with pytest.raises(RunError, match=r"because data.jsonl is missing or damaged.*The run is finished"):
        train(tmp_path / "changed" / "data", tmp_path / "run", resume=True)
    for text in ("[]", '{"asked": []}', '{"asked": {"data": 3}}'):
        (run.folder / "config.json").write_text(text)
        with pytest.raises(RunError, match=r"config.json does not hold the options of a training"):
            train(data, tmp_path / "run", resume=True)


def test_a_finished_run_is_opened(data: Path, uninterrupted: Run):
    again = train(data, uninterrupted.folder, resume=True)
    assert again.metrics == uninterrupted.metrics and values(again.model) == values(uninterrupted.model)


def test_resume_without_anything_to_resume(data: Path, tmp_path: Path):
    run = train(data, tmp_path / "run", resume=True)
    assert len(run.history) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(RunError, match="has no run to resume"):
        train(data, tmp_path / "mine", resume=True)


# Other processes -------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import test_checkpoint as here
from pathlib import Path

def show(session):
    def event(event):
        # One step after the last checkpoint was begun, wherever that is.
        if event[1]["kind"] == "step" and event[0] == 8:
            os.kill(os.getpid(), signal.SIGKILL)
    return event

here.train(Path(sys.argv[1]), Path(sys.argv[2]), show=show, checkpoint_seconds=0)
"""


def test_killed_without_warning(data: Path, tmp_path: Path, tinynet: Path, uninterrupted: Run):  # noqa: F811
    here = Path(__file__).parent
    result = plugin_kit.run("-c", KILLED, str(data), str(tmp_path / "run"), paths=(tinynet, here))
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [6, 7]
    run = train(data, tmp_path / "run", resume=True)
    assert values(run.model) == values(uninterrupted.model) and timeless(run) == timeless(uninterrupted)


def test_sigterm_leaves_a_checkpoint_and_the_signals_exit_code(data: Path, tmp_path: Path, tinynet: Path):  # noqa: F811
    """The command line, asked to stop after its first epoch, and the same command again with `--resume`."""
    import os

    command = [sys.executable, "-m", "zoo", "train", str(data), "--backbone", "tinynet", "--scratch", "--plan", "all"]
    command += ["--augment", "none", "--epochs", "2000", "--out", str(tmp_path / "run"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tinynet), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        for line in process.stderr:
            if line.startswith("epoch"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGTERM, rest
    assert "repeat the command with --resume" in rest and "Traceback" not in rest
    steps = Checkpoints(tmp_path / "run" / "checkpoints").steps()
    assert len(steps) == 1 and steps[0] >= 1

"""What `zoo.train` makes of data and labels, what it shows, and what a model says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import training_kit
from training_kit import CLASSES, FAST, create, draw_folder, picture

import zoo
from zoo.data import Dataset, read, split
from zoo.errors import ConfigError, DataError, RunError, WeightsError
from zoo.models.export import native_tensors
from zoo.training.data import named_after, relabelled, splits
from zoo.training.session import Session
from zoo.weights.file import write

installed, own_cache, tinynet = training_kit.installed, training_kit.own_cache, training_kit.tinynet
data = training_kit.data


# Data ------------------------------------------------------------------------------------------------------------


def test_without_a_split_a_stratified_share_is_validated_on(tmp_path: Path):
    source = draw_folder(tmp_path / "data", CLASSES, 10)
    run = zoo.train(create(), source, plan="head", epochs=1, out=tmp_path / "run", seed=5, **FAST)
    assert (run.metrics["train_images"], run.metrics["val_images"]) == (24, 6)
    (pool,) = read(source).values()
    train, val = split(pool, 0.2, 5)
    assert val.counts() == {"disc": 2, "frame": 2, "stripe": 2}
    asked = json.loads((run.folder / "config.json").read_text())["asked"]["data"]
    assert (asked["train"], asked["val"]) == (train.fingerprint(), val.fingerprint())


def test_labels_in_another_order_mean_the_same(data: Path, tmp_path: Path):
    order = ("stripe", "disc", "frame")
    run = zoo.train(create(order), data, plan="all", lr=1e-2, epochs=4, out=tmp_path / "run", **FAST)
    assert run.model.labels == order and run.metrics["accuracy"] > 0.6
    assert zoo.evaluate(run, data, split="val").metrics["accuracy"] == run.metrics["accuracy"]
    right = [run.model.predict(data / "val" / kind / "8.png").label == kind for kind in CLASSES]
    assert sum(right) >= 2


def targets(dataset: Dataset) -> dict[str, set[int]]:
    """What a sample of each folder is trained or scored as."""
    found: dict[str, set[int]] = {}
    for sample in dataset:
        found.setdefault(sample.image.parent.name, set()).add(sample.target)
    return found


def numbered_folders(root: Path, *numbers: int) -> Path:
    for number in numbers:
        (root / str(number)).mkdir(parents=True)
        for i in range(2):
            picture("disc", 100 * number + i).save(root / str(number) / f"{i}.png")
    return root


def test_folders_called_by_numbers_mean_these_numbers(tmp_path: Path):
    """Twelve folders: as text, `10` would come before `2`, and folder 2 would be learned as the fifth name."""
    names = tuple("zero one two three four five six seven eight nine ten eleven".split())
    part = read(numbered_folders(tmp_path / "all", *range(12)))["all"]
    assert part.classes == tuple(map(str, range(12)))
    for labels in (names, part.classes, tuple(sorted(part.classes))):
        model = create(labels)
        meant = {str(n): {labels.index(names[n] if labels is names else str(n))} for n in range(12)}
        assert targets(relabelled(part, model, by_position=True)) == meant
        fewer = read(numbered_folders(tmp_path / labels[2], 0, 2, 10, 11))["all"]
        assert targets(relabelled(fewer, model)) == {n: meant[n] for n in ("0", "2", "10", "11")}
    with pytest.raises(DataError, match="'12'.*class numbers, here from 0 to 11"):
        zoo.train(create(names), numbered_folders(tmp_path / "from1", *range(1, 13)), out=tmp_path / "run", **FAST)


def test_a_class_that_a_model_does_not_know_is_not_scored_as_another(data: Path, tmp_path: Path):
    """Neither in training nor in an evaluation, where the labels have names."""
    with pytest.raises(DataError, match="does not know: 'disc', 'frame', 'stripe'"):
        zoo.train(create(("a", "b", "c")), data, plan="head", epochs=1, out=tmp_path / "run", **FAST)
    for classes in (("disc", "frame", "wedge"), ("disc", "wedge")):
        with pytest.raises(DataError, match="does not know: 'wedge'"):
            zoo.evaluate(create(), draw_folder(tmp_path / str(len(classes)), classes, 2))


def test_numbered_labels_in_another_order_take_the_names_of_the_data(tmp_path: Path):
    """Labels that are mere numbers are places: the model takes the data's names, also where these are other numbers."""
    part = read(numbered_folders(tmp_path / "from1", 1, 2, 10))["all"]
    model = zoo.create("tinynet", "classifier", num_classes=3, pretrained=False)
    named_after(model, part)
    assert model.labels == ("1", "2", "10")
    assert targets(relabelled(part, model)) == {"1": {0}, "2": {1}, "10": {2}}


def test_a_head_of_numbered_classes_is_not_kept_for_numbers_in_another_order(tmp_path: Path):
    numbers = tuple(map(str, range(11)))
    weights = tmp_path / "bare.safetensors"  # weights whose classes have no names
    write(weights, dict(native_tensors(create(numbers))))
    new = {
        labels: zoo.create("tinynet", "classifier", weights=str(weights), labels=labels).card.new_head
        for labels in (numbers, tuple(sorted(numbers)), tuple("abcdefghijk"))
    }
    assert list(new.values()) == [False, True, False]


def test_numbered_labels_take_the_names_of_the_data(data: Path, tmp_path: Path):
    model = zoo.create("tinynet", "classifier", num_classes=3, pretrained=False)
    run = zoo.train(model, data, plan="head", epochs=1, out=tmp_path / "run", **FAST)
    assert zoo.load(run.folder).labels == CLASSES


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("disc", "frame"), r"the model has 2 classes \(disc, frame\) and .* has 3 \(disc, frame, stripe\)"),
        (("frame", "wedge", "disc"), "'stripe'"),  # some agree: the rest cannot be guessed
    ],
)
def test_labels_that_do_not_fit(data: Path, tmp_path: Path, labels: tuple[str, ...], words: str):
    with pytest.raises(DataError, match=words):
        zoo.train(create(labels), data, out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plan", ["head", "all"])
def test_an_image_that_cannot_be_read(tmp_path: Path, plan: str):
    source = draw_folder(tmp_path / "data", CLASSES, 6)
    bad = source / "frame" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(DataError, match=r"frame/3\.png"):
        zoo.train(create(), source, plan=plan, epochs=1, out=tmp_path / "run", **FAST)
    if plan == "head":  # nothing was trained: the folder is free for the next attempt
        assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_not_empty(data: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty: choose another --out"):
        zoo.train(create(), data, out=tmp_path / "run", **FAST)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_without_out_runs_are_numbered(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folders = [zoo.train(create(), data, plan="head", epochs=1, **FAST).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == [f"runs/{data.name}-tinynet-{i}" for i in (1, 2)]


def test_what_the_data_leaves_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = draw_folder(tmp_path / "data", CLASSES, 6)
    (source / "disc" / "phone.heic").write_bytes(b"x")
    how = {name: value for name, value in FAST.items() if name != "show"}
    run = zoo.train(create(), source, plan="head", epochs=1, out=tmp_path / "run", **how)
    said = capsys.readouterr().err
    assert "data: 1 file left out: 1 .heic not readable as images." in said
    assert "the data has no validation split; 4 of its images are set aside as one." in said
    assert any(".heic" in note for note in zoo.evaluate(run, source).notes)


def test_data_sets_that_share_some_files_are_refused(tmp_path: Path):
    (pool,) = read(draw_folder(tmp_path / "data", CLASSES, 6)).values()
    with pytest.raises(DataError, match="have 2 files in common"):
        zoo.train(create(), {"train": pool.subset(range(10), "a"), "val": pool.subset(range(8, 18), "b")}, **FAST)
    notes = splits({"train": pool, "val": pool})["val"].notes  # the same on purpose
    assert "train and val are the same 18 files" in notes[0]


# What is shown ---------------------------------------------------------------------------------------------------


def test_plain_lines_when_there_is_no_terminal(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    zoo.train(create(), data, epochs=2, out=tmp_path / "run", **{k: v for k, v in FAST.items() if k != "show"})
    captured = capsys.readouterr()
    assert captured.out == "" and "\x1b" not in captured.err
    lines = captured.err.splitlines()
    assert "phase head: 1 epochs of 3 steps, 51 of 1,467 parameters train (3.5%), on cached features" in lines
    assert sum(line.startswith("epoch ") for line in lines) == 2


def test_events_in_order(data: Path, tmp_path: Path):
    kinds: list[str] = []

    def show(session: Session):
        return lambda event: kinds.append(event[1]["kind"])

    zoo.train(create(), data, epochs=2, out=tmp_path / "run", **{**FAST, "show": show})
    # A note may say that a class was never predicted.
    assert [kind for kind in kinds if kind != "note"] == ["phase", "step", "step", "step", "epoch"] * 2


# Features and citations ------------------------------------------------------------------------------------------


def test_features(data: Path):
    model = create()
    photos = sorted((data / "val" / "disc").iterdir())
    found = zoo.features(model, photos, at=["stem", "body"])
    assert {name: array.shape for name, array in found.items()} == {"stem": (4, 8, 8, 8), "body": (4, 4, 4, 16)}
    x = model.normalize(jnp.asarray(model.prepare(photos)))
    bare = zoo.features(model.backbone, x, at=["body"])
    np.testing.assert_allclose(bare["body"], found["body"], rtol=1e-4, atol=1e-5)
    assert list(zoo.features(model, photos[0])) == ["body"]  # the last stage, when none is named
    with pytest.raises(ConfigError, match="bare backbone has no preprocessing"):
        zoo.features(model.backbone, photos)
    with pytest.raises(
        zoo.UnknownNameError if hasattr(zoo, "UnknownNameError") else LookupError, match="stem, body|body"
    ):
        zoo.features(model, photos, at=["layer9"])


def test_cite():
    assert "@misc{tinynet}" in zoo.cite(create())
    assert zoo.cite("tinynet") == "@misc{tinynet}"
    assert "Deep Residual Learning" in zoo.cite("resnet18.a1_in1k")


def test_a_file_that_is_no_model_of_zoos(tmp_path: Path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="weights, not a model saved by zoo"):
        zoo.load(tmp_path)

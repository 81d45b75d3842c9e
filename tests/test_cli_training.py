"""`zoo train`, `evaluate`, `predict`, `export`: the whole way, and one clear sentence for each mistake."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plugin_kit
import pytest
from safetensors.numpy import load_file, save_file
from training_kit import draw_folder, draw_splits, installed, own_cache, picture, tinynet  # noqa: F401  (fixtures)

import zoo.cli
from zoo.data import damage
from zoo.errors import DataError
from zoo.models.predictor import WholeImages

TINY = ("--backbone", "tinynet", "--scratch", "--augment", "none", "--batch-size", "8")


@dataclass
class Result:
    """What a command left: exit code, and the two streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command line in this process, which saves the seconds that importing jax takes."""

    def command(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, args)])
        capsys.readouterr()
        try:
            zoo.cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return Result(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_splits(tmp_path_factory.mktemp("drawn"), train=10, val=6)


@pytest.fixture
def trained(run, data: Path, tmp_path: Path) -> Path:
    """A run folder."""
    result = run("train", data, *TINY, "--plan", "head", "--epochs", "2", "--out", tmp_path / "trained")
    assert result.code == 0, result.err
    return tmp_path / "trained"


# The whole way ---------------------------------------------------------------------------------------------------


def test_from_photos_to_an_export(run, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = run("train", data, *TINY, "--plan", "head+all", "--epochs", "3", "--out", out, "--seed", "1", "--json")
    assert result.code == 0, result.err
    metrics = json.loads(result.out)
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert (metrics["train_images"], metrics["val_images"], metrics["epochs"]) == (20, 12, 3)
    # Standard error tells what happens in plain lines, since it is no terminal.
    assert "\x1b" not in result.err and result.err.count("epoch ") == 3

    evaluated = run("evaluate", out, data, "--json")
    assert evaluated.code == 0, evaluated.err
    again = json.loads(evaluated.out)
    assert {k: again[k] for k in ("accuracy", "macro_f1", "confusion", "images")} == {
        k: metrics[k] for k in ("accuracy", "macro_f1", "confusion", "images")
    }

    photo = data / "val" / "disc" / "10.png"
    (one,) = json.loads(run("predict", out, photo, "--json").out)
    assert one["file"] == str(photo) and one["label"] in ("disc", "frame") and 0.5 <= one["score"] <= 1
    assert [name for name, _ in one["top"]][0] == one["label"]
    many = json.loads(run("predict", out, data / "val", photo, "--json").out)
    assert len(many) == 13 and (many[-1]["file"], many[-1]["label"]) == (one["file"], one["label"])
    assert many[-1]["score"] == pytest.approx(one["score"], abs=1e-4)  # another batch size is another program
    right = sum(row["label"] == Path(row["file"]).parent.name for row in many[:-1])
    assert right / 12 == pytest.approx(metrics["accuracy"])

    exported = run("export", out, "--format", "timm")
    assert exported.code == 0, exported.err
    folder = Path(exported.out.strip())
    assert folder == out / "export-timm" and "fc.weight" in load_file(folder / "model.safetensors")
    back = zoo.create("tinynet", "classifier", weights=str(folder))
    np.testing.assert_array_equal(back.head.fc.kernel[...], zoo.load(out).head.fc.kernel[...])
    assert back.labels == ("disc", "frame")


def test_tables_for_people(run, data: Path, trained: Path):
    evaluated = run("evaluate", trained, data)
    lines = [line.split() for line in evaluated.out.splitlines()]
    metrics = {row[0]: float(row[1]) for row in lines if len(row) == 2 and row[0] != "metric"}
    assert metrics["accuracy"] == pytest.approx(
        json.loads((trained / "metrics.json").read_text())["accuracy"], abs=1e-4
    )
    assert [row[0] for row in lines if len(row) == 5] == ["class", "disc", "frame"]
    predicted = run("predict", trained, data / "val" / "disc")
    assert predicted.out.splitlines()[0].split() == ["file", "label", "score", "then"]
    assert len(predicted.out.splitlines()) == 7 and "\x1b" not in predicted.out


def test_options_reach_the_model(run, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    options = ("--set", "dropout=0.25", "--set", "pool=max", "--set", "crop_pct=0.9", "--set", "class_weights=balanced")
    result = run("train", data, *TINY, "--plan", "head", "--epochs", "1", "--image-size", "24", *options, "--out", out)
    assert result.code == 0, result.err
    model = zoo.load(out)
    assert (model.adapter.dropout, model.adapter.pool, model.adapter.class_weights) == (0.25, "max", (1.0, 1.0))
    assert (model.card.preprocess.crop_pct, model.card.preprocess.size) == (0.9, (24, 24))


def test_rules_by_option(run, data: Path, tmp_path: Path):
    rules = ("--rule", "head.*=1", "--rule", "backbone.bn2.*=0.1", "--rule", "*=freeze")
    result = run("train", data, *TINY, *rules, "--epochs", "1", "--out", tmp_path / "run")
    assert result.code == 0 and "66 of 1,450 parameters train" in result.err


def test_resume_of_a_finished_run(run, data: Path, trained: Path):
    again = run("train", data, *TINY, "--plan", "head", "--epochs", "2", "--out", trained, "--resume", "--json")
    assert json.loads(again.out) == json.loads((trained / "metrics.json").read_text())
    other = run("train", data, *TINY, "--plan", "head", "--epochs", "3", "--out", trained, "--resume")
    mistake(other, "cannot be resumed: plan.0.epochs was 2 and is now 3")


# Mistakes --------------------------------------------------------------------------------------------------------


def mistake(result: Result, *words: str) -> None:
    """Exit code 2 and one error of a few lines, at the end, that says these words; nothing on standard output."""
    assert result.code == 2, (result.code, result.out, result.err)
    (start,) = [i for i, line in enumerate(result.err.splitlines()) if line.startswith("error: ")]
    lines = result.err.splitlines()[start:]
    assert len(lines) <= 5 and "Traceback" not in result.err and result.out == ""
    assert all(word in "\n".join(lines) for word in words), lines


def train(run, data: object, out: Path, *options: str) -> Result:
    return run("train", data, *TINY, "--plan", "head", "--epochs", "1", "--out", out, *options)


def test_an_unknown_backbone_names_the_nearest(run, data: Path, tmp_path: Path):
    result = run("train", data, "--backbone", "resnet81", "--out", tmp_path / "run")
    mistake(result, "unknown backbone 'resnet81'", "Nearest:", "resnet18")
    result = run("train", data, "--backbone", "resnet18.a1_in2k", "--out", tmp_path / "run")
    mistake(result, "resnet18.a1_in2k", "resnet18.a1_in1k")


def test_unknown_names_of_other_kinds(run, data: Path, trained: Path, tmp_path: Path):
    mistake(train(run, data, tmp_path / "a", "--task", "classifer"), "classifer", "classifier")
    mistake(train(run, data, tmp_path / "a", "--set", "droput=0.1"), "'droput'", "Nearest: dropout")
    mistake(train(run, data, tmp_path / "a", "--dtype", "float16"), "unknown dtype 'float16'", "bfloat16")
    mistake(train(run, data, tmp_path / "a", "--plan", "heads"), "unknown plan 'heads'", "head")
    mistake(
        train(run, data, tmp_path / "a", "--plan", "last:9"), "the backbone has 2 stages with parameters (stem, body)"
    )
    mistake(train(run, data, tmp_path / "a", "--format", "xml"), "'xml'", "folder")
    mistake(train(run, data, tmp_path / "a", "--augment", "strong"), "'strong'", "auto or none")
    mistake(run("export", trained, "--format", "onnx"), "'onnx'", "timm")
    mistake(run("evaluate", trained, data, "--split", "dev"), "no split 'dev'", "train, val")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("dropout", "--set 'dropout' is not KEY=VALUE"),
        ("image_size=64", "--set image_size is not possible: use --image-size"),
        ("labels=a", "--set labels is not possible"),
        ("=1", "--set '=1' is not KEY=VALUE"),
        ("dropout=2", "dropout is 2"),
        ("dropout=much", "dropout"),
        ("head=cnv", "cnv"),
        ("class_weights=[1,2,3]", "3 class_weights for 2 classes"),
        ("crop_pct=1.5", "crop_pct is 1.5"),
        ("crop_pct=much", "crop_pct is 'much'"),
        ("interpolation=cubic", "unknown interpolation 'cubic'. Nearest: bicubic"),
        ("crop_mode=left", "unknown crop_mode 'left'. Accepted: center, letterbox, squash"),
        ("mean=grey", "mean='grey' must be one number per channel"),
        ("std=[0.5]", "std"),
    ],
)
def test_set(run, data: Path, tmp_path: Path, item: str, words: str):
    mistake(train(run, data, tmp_path / "run", "--set", item), words)
    assert not (tmp_path / "run").exists()


def test_set_names_nothing_that_the_command_decides_itself(run, data: Path):
    photo = next(path for path in data.rglob("*") if path.is_file())
    mistake(
        run("predict", "--backbone", "tinynet", photo, "--set", "dtype=bfloat16"),
        "--set dtype is not possible: use --dtype",
    )
    mistake(
        run("stylize", "--backbone", "tinynet", photo, "--style", photo, "--set", "weights=a"),
        "--set weights is not possible",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "0"), "epochs is 0"),
        (("--batch-size", "0"), "batch_size is 0"),
        (("--lr", "-1"), "lr is -1"),
        (("--clip", "-1"), "clip is -1"),
        (("--ema", "1.5"), "ema is 1.5"),
        (("--accumulate", "100"), "accumulate is 100"),
        (("--image-size", "4"), "cannot process images of 4x4"),
        (("--rule", "head.fcc.*=1", "--rule", "*=freeze"), "'head.fcc.*' matches no parameter"),
        (("--rule", "*=1", "--rule", "head.*=1"), "'head.*' has no effect"),
        (("--rule", "head.*=fast"), "--rule 'head.*=fast' is not PATTERN=MULTIPLIER"),
        (("--rule", "freeze"), "--rule 'freeze' is not"),
        (("--weights", "/nowhere/model.safetensors"), "/nowhere/model.safetensors"),
    ],
)
def test_values_out_of_range(run, data: Path, tmp_path: Path, options: tuple[str, ...], words: str):
    given = [option for option in TINY if option != "--scratch"] if "--weights" in options else TINY
    result = run("train", data, *given, "--plan", "head", "--epochs", "1", "--out", tmp_path / "run", *options)
    mistake(result, words)
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_or_cannot_be_learned_from(run, tmp_path: Path):
    mistake(train(run, tmp_path / "absent", tmp_path / "run"), str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    mistake(train(run, tmp_path / "empty", tmp_path / "run"), str(tmp_path / "empty"))
    one = draw_folder(tmp_path / "one", ("disc",), 4)
    mistake(train(run, one, tmp_path / "run"), "one", "class")
    hollow = draw_folder(tmp_path / "hollow", count=3)
    for file in (hollow / "frame").iterdir():
        file.unlink()
    mistake(train(run, hollow, tmp_path / "run"), "frame")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plan", ["head", "all"])
def test_an_unreadable_image_is_named(run, tmp_path: Path, plan: str):
    source = draw_folder(tmp_path / "data", count=6)
    (source / "disc" / "2.png").write_bytes(b"no image at all")
    result = train(run, source, tmp_path / "run", "--plan", plan)
    mistake(result, "disc/2.png")


def test_predicting_and_evaluating_what_does_not_fit(run, data: Path, trained: Path, tmp_path: Path):
    (tmp_path / "text.jpg").write_text("no image")
    mistake(run("predict", trained, tmp_path / "text.jpg"), "text.jpg")
    mistake(run("predict", trained, tmp_path / "absent.jpg"), "absent.jpg")
    mistake(run("predict", trained), "give RUN and at least one image")
    mistake(run("predict", tmp_path / "no-run", tmp_path / "text.jpg"), "no-run")
    mistake(run("predict", tmp_path / "no-run", tmp_path / "absent.jpg"), "no run", "no-run")
    image = next(data.rglob("*.png"))
    mistake(run("predict", image, image), "is an image", "--backbone")
    for option in (("--task", "detector"), ("--dtype", "bfloat16"), ("--image-size", "64"), ("--weights", image)):
        mistake(run("predict", trained, image, *option), f"{option[0]} needs --backbone")
    mistake(run("evaluate", trained), "give RUN and DATA")
    mistake(run("evaluate", trained, data, "--set", "dropout=0.1"), "`dropout` cannot be changed", "none")
    other = draw_folder(tmp_path / "other", ("stripe", "wedge", "disc"), 2)
    mistake(run("evaluate", trained, other), "'stripe', 'wedge'", "'disc', 'frame'")
    (tmp_path / "plain").mkdir()
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "plain" / "model.safetensors")
    mistake(run("predict", tmp_path / "plain", data / "val" / "disc" / "10.png"), "not a model saved by zoo")


def test_a_label_count_that_does_not_fit(data: Path, tmp_path: Path):
    """On the command line the classes are always the data's; in Python the model may have others."""
    model = zoo.create("tinynet", "classifier", num_classes=5, pretrained=False)
    with pytest.raises(zoo.errors.DataError, match=r"the model has 5 classes .* and .* has 2 \(disc, frame\)"):
        zoo.train(model, data, out=tmp_path / "run")


def test_weights_that_do_not_fit(run, data: Path, trained: Path, tmp_path: Path):
    tensors = load_file(trained / "model.safetensors")
    for name, broken in {
        "another net": {"conv1.weight": np.zeros((8, 3, 3, 3), np.float32)},
        "another shape": {k: (v[..., :-1] if v.ndim == 4 else v) for k, v in _native(tensors).items()},
        "one more": {**_native(tensors), "conv9.weight": np.zeros(3, np.float32)},
        "one less": {k: v for k, v in _native(tensors).items() if k != "bn2.running_var"},
    }.items():
        file = tmp_path / f"{name}.safetensors"
        save_file(broken, file)
        result = run("train", data, "--backbone", "tinynet", "--weights", file, "--out", tmp_path / "run")
        mistake(result)
        assert any(word in result.err for word in ("bn1", "bn2", "conv1", "conv2", "conv9")), (name, result.err)
    pickle = tmp_path / "weights.safetensors"
    pickle.write_bytes(b"\x80\x04}q\x00.")
    mistake(run("train", data, "--backbone", "tinynet", "--weights", pickle, "--out", tmp_path / "run"), "pickle")
    assert not (tmp_path / "run").exists()


def _native(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name.removeprefix("backbone."): np.ascontiguousarray(v) for name, v in tensors.items() if "backbone" in name
    }


def test_a_run_folder_in_use(run, data: Path, trained: Path, tmp_path: Path):
    mistake(train(run, data, trained), "exists and is not empty", "--resume")
    (tmp_path / "file").write_text("")
    mistake(train(run, data, tmp_path / "file"), "is a file, not a directory", "--out")
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "x").write_text("")
    mistake(train(run, data, tmp_path / "locked" / "x" / "run"), "cannot be written")


# As a process of its own -----------------------------------------------------------------------------------------


def test_as_a_process(data: Path, tmp_path: Path, tinynet: Path):  # noqa: F811
    """What a shell sees: the exit code, and one line."""
    result = plugin_kit.zoo(
        "train", str(data), "--backbone", "tinynett", "--out", str(tmp_path / "r"), paths=(tinynet,)
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: unknown backbone 'tinynett'") and len(result.stderr.splitlines()) == 1


def test_missing_arguments(run):
    result = run("train")
    assert result.code == 2 and "DATA" in result.err.upper()
    result = run("train", "data", "--out", "x")
    assert result.code == 2 and "--backbone" in result.err


def interrupt() -> None:
    raise KeyboardInterrupt


def test_one_bad_file_is_one_bad_row(run, data: Path, tmp_path: Path):
    """Everything else is predicted and written, the bad ones are named, and the exit code tells."""
    model, folder, out = tmp_path / "model", tmp_path / "photos", tmp_path / "out"
    zoo.save(zoo.create("tinynet", "classifier", labels=("disc", "frame"), pretrained=False), model)
    draw_folder(folder, ("disc",), 7)
    good = run("predict", model, folder, "--json", "--batch-size", "4")
    assert good.code == 0
    bad = {"1.png": b"<html>403</html>", "4.png": (folder / "disc" / "4.png").read_bytes()[:-40], "6.png": b""}
    for name, content in bad.items():
        (folder / "disc" / name).write_bytes(content)
    os.mkfifo(folder / "disc" / "pipe.jpg")
    absent = tmp_path / "absent.png"
    result = run("predict", model, folder, absent, "--json", "--batch-size", "4", "--out", out)
    assert result.code == 3
    rows = {Path(row["file"]).name: row for row in json.loads(result.out)}
    failed = {name for name, row in rows.items() if "error" in row}
    assert list(rows) == [*(f"{i}.png" for i in range(7)), "pipe.jpg", "absent.png"]
    assert failed == {*bad, "pipe.jpg", "absent.png"}
    lines = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    assert [Path(line.split()[1]).name for line in lines] == ["1.png", "4.png", "6.png", "pipe.jpg", "absent.png"]
    assert "named pipe" in rows["pipe.jpg"]["error"] and "5 of 9 images could not be predicted" in result.err
    for row in json.loads(good.out):
        if (name := Path(row["file"]).name) not in failed:
            assert rows[name]["label"] == row["label"] and rows[name]["score"] == pytest.approx(row["score"], rel=1e-5)
    assert [Path(row["file"]).name for row in json.loads((out / "failed.json").read_text())] == sorted(
        failed - {"absent.png"}
    ) + ["absent.png"]
    assert len(json.loads((out / "predictions.json").read_text())) == 4
    table = run("predict", model, folder)
    assert table.code == 3 and table.out.count(".png") == 4
    again = run("predict", model, folder / "disc" / "0.png", "--out", out)
    assert again.code == 0 and not (out / "failed.json").exists()
    with pytest.MonkeyPatch.context() as patch:  # Ctrl-C in the second batch
        real, batches = WholeImages.__call__, iter([True, True, False])
        patch.setattr(WholeImages, "__call__", lambda *args: real(*args) if next(batches) else interrupt())
        stopped = run("predict", model, folder, "--batch-size", "4", "--out", tmp_path / "part")
    assert stopped.code == 130 and "stopped after 4 of 8 images" in stopped.err
    assert len(json.loads((tmp_path / "part" / "predictions.json").read_text())) == 3
    nothing = run("predict", model, folder / "disc" / "1.png", absent, "--out", tmp_path / "none")
    mistake(nothing, "none of the 2 images could be predicted", "1.png")
    assert not (tmp_path / "none").exists()


def test_damaged_images_are_named_or_left_out(run, tmp_path: Path):
    data, out = draw_splits(tmp_path / "data", train=10, val=6), tmp_path / "run"
    whole = {name: (data / name).read_bytes() for name in ("train/disc/3.png", "train/frame/7.png", "val/disc/12.png")}
    for name, content in whole.items():
        (data / name).write_bytes(content[:-30])
    options = ("--plan", "head", "--epochs", "2", "--out", out)
    named = run("train", data, *TINY, *options)
    assert named.code == 2 and not out.exists() and "epoch" not in named.err
    assert all(str(data / name) in named.err for name in whole) and "--on-corrupt skip" in named.err
    skipped = run("train", data, *TINY, *options, "--on-corrupt", "skip", "--json")
    assert skipped.code == 0, skipped.err
    metrics = json.loads(skipped.out)
    assert (metrics["train_images"], metrics["val_images"]) == (18, 11)
    assert (
        "data/train: 2 of 20 images left out, because files cannot be read: train/disc/3.png, train/frame/7.png."
        in skipped.err
    )
    left_out = json.loads((out / "config.json").read_text())["left_out"]
    assert left_out == {
        "train": ["train/disc/3.png", "train/frame/7.png"],
        "val": ["val/disc/12.png"],
    }
    # A resumed run leaves out the same images, whatever has become of them.
    (data / "train/disc/3.png").write_bytes(whole["train/disc/3.png"])
    (data / "train/frame/7.png").unlink()
    resumed = run("train", data, *TINY, *options, "--resume", "--json")
    assert resumed.code == 0 and json.loads(resumed.out) == metrics, resumed.err
    refused = run("evaluate", out, data)
    assert refused.code == 2 and "1 of 12 images of data/val cannot be used" in refused.err and "12.png" in refused.err
    evaluated = json.loads(run("evaluate", out, data, "--on-corrupt", "skip", "--batch-size", "8", "--json").out)
    assert (evaluated["images"], evaluated["accuracy"]) == (11, metrics["accuracy"])


def damaged_splits(root: Path) -> tuple[Path, list[str]]:
    data = draw_splits(root / "data", train=10, val=6, test=3)
    names = ["train/disc/3.png", "val/disc/12.png", "test/frame/17.png"]
    for name in names:
        (data / name).write_bytes((data / name).read_bytes()[:-30])
    return data, [str(data / name) for name in names]


def test_damage_in_large_data_is_named_when_it_is_met(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(damage, "WHOLE", 0)
    (data, names), out = damaged_splits(tmp_path), tmp_path / "run"
    cached = run("train", data, *TINY, "--plan", "head", "--epochs", "1", "--out", out)
    assert cached.code == 2 and not out.exists() and all(name in cached.err for name in names)
    model = zoo.create("tinynet", "classifier", labels=("disc", "frame"), pretrained=False)
    with pytest.raises(DataError, match="1 of 6 images of data/test cannot be used(?s:.*)17.png"):
        zoo.evaluate(model, data, batch_size=8)


@pytest.mark.exhaustive
def test_damage_in_large_data_is_found_before_the_images_are_needed(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(damage, "WHOLE", 0)
    data, names = damaged_splits(tmp_path)
    draw_folder(data / "train", ("disc",), 1, 3)
    later = run("train", data, *TINY, "--plan", "all", "--epochs", "1", "--out", tmp_path / "run")
    assert later.code == 2 and "epoch   1" not in later.err, later.err
    assert names[0] not in later.err and all(name in later.err for name in names[1:])

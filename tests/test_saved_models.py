"""A saved model is the model that was trained: no flipped bit, no other code, and a run can be gone on with."""

from __future__ import annotations

import json
import signal
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import plugin_kit
import pytest
from training_kit import CLASSES, FAST, TINYNET, create, data, draw_folder, installed, own_cache, same, tinynet, values  # noqa: F401

import zoo
import zoo.registry
from zoo.errors import ConfigError, PluginError, RunError, WeightsError
from zoo.models.card import Provider
from zoo.models.continued import same_classes
from zoo.training import Run
from zoo.training.checkpoint import Checkpoints
from zoo.training.session import Interrupted
from zoo.weights.file import SEAL, content_digest, read, write


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:  # noqa: F811
    """A finished run with a checkpoint."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return zoo.train(create(), data, out=out, plan="head", epochs=2, checkpoint_seconds=0, **FAST)


def flipped(file: Path, target: Path, bit: int) -> Path:
    """A copy of the file with one bit of another value."""
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    target.write_bytes(content)
    return target


# A seal ------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_saved_model_is_refused(run: Run, tmp_path: Path):
    """In the header's length, in the header, and in the values of every tensor."""
    file = run.folder / "model.safetensors"
    header = 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]
    rng = np.random.default_rng(0)
    places = [
        *rng.integers(0, 64, 3),
        *rng.integers(64, header * 8, 20),
        *rng.integers(header * 8, file.stat().st_size * 8, 20),
        *(8 * (entry.start + 3) + 6 for entry in read(file).entries.values()),  # the highest bit of an exponent
    ]
    broken = tmp_path / "model.safetensors"
    for bit in places:
        flipped(file, broken, int(bit))
        with pytest.raises(WeightsError):
            zoo.load(broken)
        with pytest.raises(WeightsError):
            zoo.create("tinynet", "classifier", weights=str(broken))
    assert same(zoo.load(flipped(flipped(file, broken, 9999), broken, 9999)), run.model)


def test_a_flipped_bit_of_a_checkpoint_is_refused(run: Run, tmp_path: Path):
    import shutil

    whole = Checkpoints(run.folder / "checkpoints")
    step = whole.steps()[-1]
    target = Checkpoints(tmp_path / "checkpoints")
    shutil.copytree(whole.folder / f"{step:08d}", target.folder / f"{step:08d}")
    assert target.latest() is not None
    rng = np.random.default_rng(1)
    for file in [path for path in target.folder.rglob("*") if path.is_file() and path.stat().st_size]:
        before = file.read_bytes()
        flipped(file, file, int(rng.integers(0, len(before) * 8)))
        with pytest.raises(RunError, match="no checkpoint .* is intact"):
            target.latest()
        file.write_bytes(before)


def test_a_model_of_zoos_without_a_seal_is_refused(run: Run, tmp_path: Path):
    file = read(run.folder)
    said = {key: value for key, value in file.metadata.items() if key != SEAL}
    assert file.metadata[SEAL] == content_digest(file.load(), said)
    content = (run.folder / "model.safetensors").read_bytes()
    (tmp_path / "other.safetensors").write_bytes(content.replace(b'"zoo.sha256"', b'"zoo.sha25_"'))
    with pytest.raises(WeightsError, match="without the sha256 of its content"):
        zoo.load(tmp_path / "other.safetensors")
    # Its tensors alone are weights like any other's.
    bare = {name: array for name, array in file.load().items() if name.startswith("backbone.")}
    write(tmp_path / "bare.safetensors", bare, {"format": "pt"})
    assert zoo.create("tinynet", "classifier", labels=["a"], weights=str(tmp_path / "bare.safetensors")).card.new_head


def test_the_best_model_of_a_resumed_run_is_the_checkpoints(data: Path, tmp_path: Path):  # noqa: F811
    """The file beside it may be damaged: it is neither read nor does it become the final model."""
    options = {**FAST, "plan": "head", "epochs": 4, "lr": 0.5, "seed": 3}
    whole = zoo.train(create(), data, out=tmp_path / "whole", **options)

    def show(session):
        def event(event):
            if event[1]["kind"] == "step" and event[0] == 11:
                session.stop = signal.SIGTERM

        return event

    with pytest.raises(Interrupted):
        zoo.train(create(), data, out=tmp_path / "run", **{**options, "show": show})
    file = tmp_path / "run" / "model.safetensors"
    assert file.is_file()
    zeros = {name: np.zeros_like(array) for name, array in read(file).load().items()}
    write(file, zeros, read(file).metadata)  # as sound as any, and another model
    again = zoo.train(create(), data, out=tmp_path / "run", resume=True, **options)
    assert same(again.model, whole.model) and same(zoo.load(tmp_path / "run"), whole.model)
    assert again.metrics["accuracy"] == whole.metrics["accuracy"]


def test_a_damaged_model_of_a_finished_run_is_made_again(run: Run, data: Path, tmp_path: Path):  # noqa: F811
    """What the message says to do works."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    file = folder / "model.safetensors"
    flipped(file, file, file.stat().st_size * 8 - 3)
    again = {"out": folder, "plan": "head", "epochs": 2, "checkpoint_seconds": 0, "resume": True, **FAST}
    with pytest.raises(
        WeightsError, match="delete it and metrics.json, and repeat the command of the run with --resume"
    ):
        zoo.train(create(), data, **again)
    file.unlink()
    (folder / "metrics.json").unlink()
    assert same(zoo.train(create(), data, **again).model, run.model) and same(zoo.load(folder), run.model)


# Whose code --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sites(tinynet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """Puts another set of distributions on the path: `sites(folder, ...)`."""

    def use(*folders: Path) -> None:
        path = [entry for entry in sys.path if entry != str(tinynet)]
        monkeypatch.setattr(sys, "path", [*map(str, folders), *path])
        zoo.registry.reset()

    yield use
    monkeypatch.undo()
    zoo.registry.reset()


def test_a_run_records_whose_code_it_needs(run: Run):
    assert run.model.card.plugins == {
        "backbone": Provider("tinynet", "1.0"),
        "adapter": Provider("flax-zoo", zoo.__version__),
    }
    assert zoo.load(run.folder).card == run.model.card
    assert json.loads((run.folder / "config.json").read_text())["plugins"]["backbone"]["distribution"] == "tinynet"


def test_other_code_of_the_same_name_is_not_used(run: Run, sites, tinynet: Path, tmp_path: Path, data: Path):  # noqa: F811
    """Its tensors fit, and it computes something else."""
    other = tmp_path / "other"
    source = TINYNET.replace("nnx.relu(self.bn2(self.conv2(x)))", "-nnx.relu(self.bn2(self.conv2(x)))")
    plugin_kit.distribution(other, "aaa-taker", source)
    photo = next(data.rglob("*.png"))
    wanted = run.model.predict(photo).top
    sites(other)
    with pytest.raises(PluginError) as error:
        zoo.load(run.folder)
    for part in ("distribution tinynet 1.0", "pip install tinynet", "aaa-taker/tinynet has the same name"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="aaa-taker/tinynet is a different backbone of the same name"):
        zoo.create("tinynet", "classifier", weights=str(run.folder))
    sites(other, tinynet)  # both: the recorded one
    assert zoo.load(run.folder).predict(photo).top == wanted
    both = zoo.load(run.folder)
    assert both.card.qualified("backbone") == "tinynet/tinynet"
    assert zoo.create("tinynet/tinynet", "classifier", weights=str(run.folder)).predict(photo).top == wanted


def test_another_version_is_a_remark(run: Run, sites, tmp_path: Path):
    newer = tmp_path / "newer"
    plugin_kit.distribution(newer, "tinynet", TINYNET, version="2.0")
    sites(newer)
    model = zoo.load(run.folder)
    assert model.card.notes == (
        "the backbone tinynet was made with tinynet 1.0, and 2.0 is installed: predictions may differ",
    )
    assert model.card.plugins["backbone"] == Provider("tinynet", "2.0")
    assert same(model, run.model)


# Going on ----------------------------------------------------------------------------------------------------------


def test_a_run_as_weights_is_that_model(run: Run, data: Path):  # noqa: F811
    photo = next(data.rglob("*.png"))
    for labels in (None, CLASSES):
        model = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=labels)
        assert same(model, run.model) and model.labels == CLASSES and not model.card.new_head
        assert model.predict(photo).top == run.model.predict(photo).top
        assert any("12 tensors loaded" in note and "re-initialised" not in note for note in model.card.notes)


def logits(model: zoo.Model, photo: Path) -> dict[str, float]:
    x = model.normalize(model.prepare([photo]))
    return dict(zip(model.labels, np.asarray(model(x))[0].tolist(), strict=True))


def test_the_head_is_kept_by_name(run: Run, data: Path):  # noqa: F811
    photo = next(data.rglob("*.png"))
    before = logits(run.model, photo)
    turned = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=CLASSES[::-1])
    assert logits(turned, photo) == pytest.approx(before) and not turned.card.new_head
    some = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=["wedge", "stripe", "Disc"])
    after = logits(some, photo)
    assert after["stripe"] == pytest.approx(before["stripe"])
    assert after["wedge"] == after["Disc"] == pytest.approx(before["stripe"])  # from the mean of those kept
    assert not some.card.new_head
    note = " ".join(some.card.notes)
    for part in (
        "1 of 3 classes kept by name",
        "new: wedge, Disc",
        "left out: disc, frame",
        "differ by case or spaces",
    ):
        assert part in note
    none = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=["a", "b"])
    assert none.card.new_head and "re-initialised (the saved model has none of these classes)" in " ".join(
        none.card.notes
    )
    assert np.array_equal(values(none.backbone)[("conv2", "kernel")], values(run.model.backbone)[("conv2", "kernel")])


def test_classes_are_matched_by_name_in_one_unicode_form():
    assert same_classes(("b", "a"), ("a", "c", "b")) == (1, None, 0)
    assert same_classes(("caf\u00e9",), ("cafe\u0301",)) == (0,)
    assert same_classes(("0", "1"), ("cat", "dog")) == (0, 1)  # numbers are no names
    assert same_classes(("0", "1"), ("cat", "dog", "cow")) == (None, None, None)
    assert same_classes(("1", "0"), ("0", "1")) == (1, 0)


def test_the_options_of_the_run_are_taken(data: Path, tmp_path: Path):  # noqa: F811
    model = create(pool="max", head="mlp", hidden=5, class_weights=[1, 2, 3], in_channels=1)
    model.card = replace(model.card, new_head=False)
    zoo.save(model, tmp_path / "saved")
    found = zoo.create("tinynet", "classifier", weights=str(tmp_path / "saved"))
    assert same(found, model) and found.adapter == model.adapter and found.card.in_channels == 1
    assert any("pool=max" in note and "hidden=5" in note for note in found.card.notes)
    other = zoo.create("tinynet", "classifier", weights=str(tmp_path / "saved"), labels=["disc", "new"], hidden=6)
    assert (other.adapter.pool, other.adapter.hidden, other.adapter.class_weights) == ("max", 6, None)
    notes = " ".join(other.card.notes)
    assert "another form" in notes and "class_weights of the saved model has a value for each class" in notes


def test_a_run_goes_on_from_its_loss(run: Run, data: Path, tmp_path: Path):  # noqa: F811
    model = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=CLASSES)
    more = zoo.train(model, data, out=tmp_path / "more", plan="head", epochs=1, lr=1e-9, **FAST)
    assert more.history[0]["val_loss"] == pytest.approx(run.metrics["loss"], rel=1e-3)
    with pytest.raises(RunError, match=r"The run is finished. To train its model longer.*--weights"):
        zoo.train(create(), data, out=run.folder, plan="head", epochs=9, checkpoint_seconds=0, resume=True, **FAST)


def test_weights_and_no_weights_contradict_each_other(run: Run):
    with pytest.raises(ConfigError, match="contradict each other"):
        zoo.create("tinynet", "classifier", weights=str(run.folder), labels=CLASSES, pretrained=False)


def test_features_come_in_the_order_asked_for(run: Run, data: Path):  # noqa: F811
    photo = next(data.rglob("*.png"))
    for at in (["stem", "body"], ["body", "stem"]):
        found = zoo.features(run.model, photo, at=at)
        assert list(found) == at
        assert [found[name].shape[-1] for name in at] == [{"stem": 8, "body": 16}[name] for name in at]
    x = run.model.normalize(run.model.prepare([photo]))
    assert list(run.model.features(x, ["body", "pixels", "stem"])) == ["body", "pixels", "stem"]


# The command line --------------------------------------------------------------------------------------------------

RIVAL = """
import dataclasses
import zoo
from zoo.adapters.classifier import Classifier
@dataclasses.dataclass(frozen=True)
class Rival(Classifier):
    pass
@zoo.hookimpl
def zoo_adapters():
    return [zoo.AdapterSpec("rival", Rival)]
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    import zoo.cli

    def call(*args: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            zoo.cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert not code, err
        return out, err

    return call


def test_the_command_line_goes_on_and_another_task_for_the_same_data_changes_nothing(
    command,
    run: Run,
    sites,
    tinynet: Path,  # noqa: F811
    data: Path,  # noqa: F811
    tmp_path: Path,
):
    plugin_kit.distribution(tmp_path / "rival", "aaa-rival", RIVAL)
    sites(tmp_path / "rival", tinynet)
    photo = next(data.rglob("*.png"))
    label, score = run.model.predict(photo).top[0]

    def predicted(*args: object) -> tuple[str, float]:
        (found,) = json.loads(command("predict", *args, photo, "--json")[0])
        return found["label"], pytest.approx(found["score"], abs=1e-5)

    # A run knows its own task, and without --task the data of classes mean zoo's own.
    assert predicted(run.folder) == (label, score)
    assert predicted("--backbone", "tinynet", "--weights", run.folder) == (label, score)
    found = json.loads(command("evaluate", "--backbone", "tinynet", "--weights", run.folder, data, "--json")[0])
    assert found["accuracy"] == run.metrics["test"]["accuracy"]
    out, err = command(
        "train",
        data,
        "--weights",
        run.folder,
        "--plan",
        "head",
        "--epochs",
        1,
        "--lr",
        1e-9,
        "--out",
        tmp_path / "more",
    )
    more = zoo.load(tmp_path / "more")
    assert more.card.adapter == "classifier" and more.card.backbone == "tinynet"
    assert "12 tensors loaded" in err
    assert more.predict(photo).top[0] == (label, pytest.approx(score, abs=1e-3))
    command(
        "train", data, "--backbone", "tinynet", "--scratch", "--plan", "head", "--epochs", 1, "--out", tmp_path / "new"
    )
    assert zoo.load(tmp_path / "new").card.adapter == "classifier"


def test_going_on_without_anything_to_go_on_from_says_so(command, data: Path, tmp_path: Path):  # noqa: F811
    with pytest.raises(AssertionError, match=r"give --backbone NAME.*or --weights RUN"):
        command("train", data, "--out", tmp_path / "run")


def test_more_classes_are_learned_by_a_run(run: Run, data: Path, tmp_path: Path):  # noqa: F811
    draw_folder(tmp_path / "data", (*CLASSES, "wedge"), count=5)
    model = zoo.create("tinynet", "classifier", weights=str(run.folder), labels=[*CLASSES, "wedge"])
    more = zoo.train(model, tmp_path / "data", out=tmp_path / "more", plan="head", epochs=1, **FAST)
    assert more.model.labels == (*CLASSES, "wedge")

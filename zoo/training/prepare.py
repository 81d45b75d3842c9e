"""Preparation of a training: splits with the model's labels, phases, the run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo import settings
from zoo.data import Dataset
from zoo.data.check import checked
from zoo.data.damage import naming_all, readable
from zoo.data.inspect.summary import summary
from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.models.saved import identity
from zoo.training.config import Recipe
from zoo.training.data import Data, check_moved, named_after, relabelled, splits, training_splits
from zoo.training.manifest import Split
from zoo.training.phase_sources import moves_images
from zoo.training.plan import HEAD_RATE, Phase, make_plan
from zoo.training.rules import assign
from zoo.training.run import prepare_folder, read_json, stamp, versions


@dataclass(frozen=True)
class Splits:
    """The data of a training.

    Attributes:
        train: the training split.
        val: the validation split.
        test: the test split, or None.
        notes: remarks on the data, shown before the first step.
        left_out: name of a split in the data -> ids of its samples that were left out, because files cannot be read.
        decoded: whether all files were decoded. Otherwise only their headers were read.
    """

    train: Dataset
    val: Dataset
    test: Dataset | None
    notes: tuple[str, ...]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    decoded: bool = True

    @classmethod
    def read(cls, data: Data, recipe: Recipe, model: Model) -> Splits:
        """Read and check data of any format that suits the model's task. Targets are indexes of the data's labels."""
        parts = splits(data, recipe.format, model.adapter.targets_from)
        files = readable(parts, recipe.on_corrupt, _left_out(recipe))
        with naming_all(files.splits.values()):
            splits_by_name, notes = checked(files.splits, recipe.annotations)
        train, val = training_splits(splits_by_name, recipe.val_fraction, recipe.seed)
        if "val" not in splits_by_name and len(train) < len(splits_by_name.get("train") or splits_by_name["all"]):
            notes = (f"the data has no validation split; {len(val)} of its images are set aside as one.", *notes)
        test = splits_by_name.get("test")
        named = {"train": train, "val": val} if test is None else {"train": train, "val": val, "test": test}
        return cls(train, val, test, (*files.notes, *notes, summary(named)), files.left_out, files.whole)

    @property
    def all(self) -> tuple[Dataset, ...]:
        """The splits, without the test split if there is none."""
        return (self.train, self.val) if self.test is None else (self.train, self.val, self.test)

    def relabelled(self, model: Model, *, by_position: bool = False) -> Splits:
        """Return the splits with targets as indexes of the model's labels, see `zoo.training.data.relabelled`."""
        train, val, *test = (relabelled(one, model, by_position=by_position) for one in self.all)
        return replace(self, train=train, val=val, test=test[0] if test else None)


def _left_out(recipe: Recipe) -> dict[str, list[str]]:
    """Return the samples that the run to resume has left out; they stay out, even if they can be read by now."""
    file = settings.expanded(recipe.out or "") / "config.json"
    if not recipe.resume or not recipe.out or not file.is_file():
        return {}
    config = read_json(file)
    before = config.get("left_out") if isinstance(config, dict) else None
    if not isinstance(before, dict) or not all(isinstance(ids, list) for ids in before.values()):
        return {}  # none, or a damaged configuration, which is reported where options are compared
    return {name: [str(id) for id in ids] for name, ids in before.items()}


def make_phases(model: Model, train: Dataset, recipe: Recipe) -> tuple[Phase, ...]:
    """Return the phases of a training.

    Args:
        model: the model.
        train: the training images.
        recipe: the options.

    Raises:
        ConfigError: a phase trains a backbone that must stay fixed, or has too few batches for a single update.
    """
    batches = -(-len(train) // recipe.batch_size)
    epochs = recipe.epochs_for(batches / recipe.accumulate)
    head_rate = recipe.head_rate or HEAD_RATE
    phases = make_plan(model, recipe.plan, epochs, recipe.lr, recipe.rules, head_rate=head_rate)
    for phase in phases:
        assignment = assign(model, phase.rules)
        if model.adapter.training.backbone == "fixed" and not assignment.backbone_frozen:
            raise ConfigError(
                f"phase {phase.name} trains the backbone, which stays fixed in {model.card.adapter}: use plan head."
            )
        if phase.epochs * batches < recipe.accumulate:
            raise ConfigError(
                f"accumulate is {recipe.accumulate}, but phase {phase.name} has only {phase.epochs * batches} batches, "
                "so it would make no update. Use a smaller batch_size, a smaller accumulate or more epochs."
            )
    return phases


def with_cache(model: Model, phases: Sequence[Phase], recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """Return the options without the feature cache if it cannot be written, and a note that says so."""
    if not recipe.cache or not any(assign(model, phase.rules).backbone_frozen for phase in phases):
        return recipe, ()
    if not (problem := settings.cache_problem()):
        return recipe, ()
    note = (
        f"{problem}: features are not cached, so the backbone runs in every epoch. Set ZOO_CACHE to a directory that "
        "can be written; --no-cache silences this note."
    )
    return replace(recipe, cache=False), (note,)


def fit_to_data(model: Model, data: Splits, phases: Sequence[Phase], recipe: Recipe) -> Splits:
    """Adapt the model to the data, and return the data with the model's labels.

    The model gets the names of its classes, and room for the targets of every split.

    Args:
        model: the model; it is changed in place.
        data: the data.
        phases: the phases of the training.
        recipe: the options.

    Raises:
        ConfigError: augmentation would move images but not their targets.
    """
    named_after(model, data.train)
    data = data.relabelled(model)
    model.adapter, cut = model.adapter.fitted(data.train).sized(data.all)
    if any(moves_images(model, assign(model, phase.rules), recipe) for phase in phases):
        assert recipe.augmentation is not None
        check_moved(model, data.train, recipe.augmentation)
    # A note that several splits share is shown once.
    notes = dict.fromkeys(note for dataset in data.all for note in dataset.notes)
    return replace(data, notes=(*notes, *data.notes, *filter(None, [cut])))


def folder_for(data: Splits, model: Model, recipe: Recipe) -> Path:
    """Return the run directory: the one that was asked for, else a new one below `runs`."""
    return settings.expanded(recipe.out or _new_folder(data.train.root.name, model.card.backbone))


def begin(folder: Path, model: Model, data: Splits, phases: Sequence[Phase], recipe: Recipe) -> str:
    """Write the configuration of a run to its directory; for a resumed run, compare it with the stored one.

    Returns:
        A remark for the user, or an empty string.
    """
    manifest = {name: Split.of(one) for name, one in zip(("train", "val", "test"), data.all, strict=False)}
    asked: dict[str, Any] = {
        "model": identity(model),
        "data": {name: split.fingerprint() for name, split in manifest.items()},
        "plan": [asdict(phase) for phase in phases],
        "recipe": recipe.fixed(),
    }
    plugins = {part: asdict(provider) for part, provider in model.card.plugins.items()}
    facts = {"root": str(data.train.root.resolve()), "versions": versions(), "plugins": plugins, "started": stamp()}
    if data.left_out:
        facts["left_out"] = data.left_out
    return prepare_folder(folder, {"asked": asked, **facts}, manifest, resume=recipe.resume)


def _new_folder(data: str, backbone: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{data}-{backbone}-{number}").exists():
        number += 1
    return folder

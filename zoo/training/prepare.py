"""What comes before the first step: splits in the model's labels, phases that can train, the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zoo.data import Dataset
from zoo.data.check import checked
from zoo.errors import ConfigError
from zoo.models.model import Model
from zoo.models.saved import identity
from zoo.training.config import Recipe
from zoo.training.data import Data, check_moved, named_after, relabelled, splits, training_splits
from zoo.training.phase_sources import moves_images
from zoo.training.plan import HEAD_RATE, Phase, make_plan
from zoo.training.rules import assign
from zoo.training.run import prepare_folder, stamp, versions


@dataclass(frozen=True)
class Splits:
    """The data of a training.

    Attributes:
        train, val, test: the splits; there may be no test data.
        notes: what a user should know of them before the first step.
    """

    train: Dataset
    val: Dataset
    test: Dataset | None
    notes: tuple[str, ...]

    @classmethod
    def read(cls, data: Data, recipe: Recipe, model: Model) -> Splits:
        """Read and check the data of any format that suits the model's task, in their own labels."""
        splits_by_name, notes = checked(splits(data, recipe.format, model.adapter.targets_from), recipe.annotations)
        train, val = training_splits(splits_by_name, recipe.val_fraction, recipe.seed)
        if "val" not in splits_by_name:
            notes = (f"the data has no validation split: {len(val)} of its images are set aside for it.", *notes)
        return cls(train, val, splits_by_name.get("test"), tuple(notes))

    @property
    def all(self) -> tuple[Dataset, ...]:
        """The splits that there are."""
        return (self.train, self.val) if self.test is None else (self.train, self.val, self.test)

    def relabelled(self, model: Model, *, by_position: bool = False) -> Splits:
        """The same with targets as indexes of the model's labels, see `zoo.training.data.relabelled`."""
        train, val, *test = (relabelled(one, model, by_position=by_position) for one in self.all)
        return Splits(train, val, test[0] if test else None, self.notes)


def make_phases(model: Model, train: Dataset, recipe: Recipe) -> tuple[Phase, ...]:
    """The phases of a training. Raises `ConfigError` for one that cannot train this model on so many images."""
    batches = -(-len(train) // recipe.batch_size)
    epochs = recipe.epochs_for(batches / recipe.accumulate)
    head_rate = recipe.head_rate or HEAD_RATE
    phases = make_plan(model, recipe.plan, epochs, recipe.lr, recipe.rules, head_rate=head_rate)
    for phase in phases:
        assignment = assign(model, phase.rules)
        if model.adapter.training.backbone == "fixed" and not assignment.backbone_frozen:
            raise ConfigError(
                f"phase {phase.name} trains the backbone, which {model.card.adapter} must not: use plan head."
            )
        if phase.epochs * batches < recipe.accumulate:
            raise ConfigError(
                f"accumulate is {recipe.accumulate}, and phase {phase.name} has only {phase.epochs * batches} batches: "
                "it would never update anything. Use a smaller batch_size, fewer accumulated batches or more epochs."
            )
    return phases


def fit_to_data(model: Model, data: Splits, phases: Sequence[Phase], recipe: Recipe) -> Splits:
    """Give the model what it takes from the data: names of its classes, and sizes of its head's outputs.

    Raises:
        ConfigError: where augmentation would leave targets behind.
    """
    named_after(model, data.train)
    data = data.relabelled(model)
    model.adapter, cut = model.adapter.fitted(data.train).sized(data.all)
    if any(moves_images(model, assign(model, phase.rules), recipe) for phase in phases):
        assert recipe.augmentation is not None
        check_moved(model, data.train, recipe.augmentation)
    # What there is to say about the data, each thing once.
    own = dict.fromkeys(note for dataset in data.all for note in dataset.notes)
    return replace(data, notes=(*own, *data.notes, *filter(None, [cut])))


def run_folder(model: Model, data: Splits, phases: Sequence[Phase], recipe: Recipe) -> Path:
    """Make the run folder and write what was asked, or hold it against what a resumed run asked."""
    folder = Path(recipe.out) if recipe.out is not None else _new_folder(data.train.root.name, model.card.backbone)
    root = str(data.train.root.resolve())
    asked: dict[str, Any] = {
        "model": identity(model),
        "data": {"root": root, "train": data.train.fingerprint(), "val": data.val.fingerprint()},
        "plan": [asdict(phase) for phase in phases],
        "recipe": recipe.fixed(),
    }
    facts = {"versions": versions(), "plugins": {k: asdict(v) for k, v in model.card.plugins.items()}}
    prepare_folder(folder, {"asked": asked, **facts, "started": stamp()}, resume=recipe.resume)
    return folder


def _new_folder(data: str, backbone: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{data}-{backbone}-{number}").exists():
        number += 1
    return folder

"""What a training is asked for: every option of `zoo.train`, declared once.

The command line, the signature and documentation of `zoo.train`, and the checks read the fields of `TrainConfig`.
Nothing here imports jax; modules that do are imported for type checkers alone, and where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, unknown_name
from zoo.numbers import BATCH_SIZE, EPOCHS, RATE, SEED, Accepted
from zoo.training.options import Declared, check_values, declared, one_of, option, row_of
from zoo.training.points import OPTIMIZERS, PLANS, SCHEDULES

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.data.augment import Augment
    from zoo.data.check import Policy
    from zoo.models.adapter import Adapter
    from zoo.training.optimizers import OwnOptimizer
    from zoo.training.plan import Phase
    from zoo.training.rules import Rule
    from zoo.training.schedules import Schedule
    from zoo.training.session import Event, Session


def read_rules(given: list[str] | None) -> list[tuple[str, float | None]] | None:
    """Read `PATTERN=MULTIPLIER` or `PATTERN=freeze` items as the rules of `zoo.training.rules`."""
    if not given:
        return None
    rules: list[tuple[str, float | None]] = []
    for item in given:
        pattern, _, value = item.rpartition("=")
        try:
            rules.append((pattern, None if value == "freeze" else float(value)))
        except ValueError:
            pattern = ""
        if not pattern:
            raise ConfigError(f"--rule {item!r} is not PATTERN=MULTIPLIER or PATTERN=freeze, e.g. 'backbone.*=freeze'.")
    return rules


# Checks that need modules with jax. They run only for values other than the default.


def _plans(name: str, value: Any) -> None:
    """Check the names of plans before a model is made; what follows a colon is checked with the model."""
    for one in value.split("+") if isinstance(value, str) else ():
        if (bare := one.partition(":")[0]) not in PLANS:
            raise unknown_name(PLANS.noun, bare, PLANS, f"`zoo list {PLANS.plural}` lists all.")


def _rules(name: str, value: Any) -> None:
    from zoo.training.rules import check_multipliers

    check_multipliers(value)


def _augment(name: str, value: Any) -> None:
    if isinstance(value, str) and value in ("auto", "none"):
        return
    from zoo.data.augment import Augment, named

    if isinstance(value, str):
        named(value, {})
    elif not isinstance(value, Augment):
        raise ConfigError(f"augment is {value!r}; accepted: auto, none, or a zoo.training.Augment.")


def _policy(name: str, value: Any) -> None:
    from zoo.targets.faults import accepted

    accepted(value)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The options of `zoo.train`, whose documentation describes each of them.

    A field is all that declares an option. None, where it is the default, leaves it to the task or to the data.

    Raises:
        ConfigError: for a value that is not accepted. UnknownNameError: for a name that nothing has.
    """

    # What trains, and how fast
    plan: str | Sequence[Phase] | None = option(
        None,
        "What trains: one or several plans, joined by + and trained one after the other, as in head+all",
        more="Or a sequence of `Phase`",
        accepted=_plans,
        point=PLANS,
        fixed=False,
    )
    rules: Sequence[Rule] | None = option(
        None,
        "Instead of a plan: learning-rate multipliers by pattern, or freeze; the first pattern that matches counts",
        more="A rule is (pattern, multiplier or None), see `zoo.training.rules`",
        accepted=_rules,
        flag="--rule",
        taken=list[str] | None,
        metavar="PATTERN=X",
        parse=read_rules,
        fixed=False,
    )
    epochs: int | None = option(
        None, "Epochs over all phases; some tasks take more where images are few", accepted=EPOCHS, fixed=False
    )
    lr: float | None = option(
        None, "Peak learning rate of the last phase. Without it: by what trains", accepted=RATE, fixed=False
    )
    optimizer: str | OwnOptimizer = option(
        "adamw",
        "Optimizer. Default learning rates suit adamw",
        point=OPTIMIZERS,
        more="Or a function from a learning rate to an optax transformation, such as `optax.adabelief`",
        accepted=row_of(OPTIMIZERS, "a function from a learning rate to an optax transformation"),
    )
    schedule: str | Schedule = option(
        "cosine",
        "How the learning rate changes in a phase",
        point=SCHEDULES,
        more="Or a function from (peak rate, updates, warm-up updates) to an optax schedule",
        accepted=row_of(SCHEDULES, "a function from (peak rate, updates, warm-up updates) to an optax schedule"),
    )
    batch_size: int | None = option(None, "Images in a step", accepted=BATCH_SIZE)
    accumulate: int = option(1, "Batches averaged into one update", accepted=Accepted(least=1, whole=True))
    weight_decay: float | None = option(
        None, "Weight decay of kernels; biases and norms have none", accepted=Accepted(least=0)
    )
    clip: float | None = option(
        1.0,
        "Largest norm of the trained parameters' gradients; 0 on the command line, None in Python, for no limit",
        accepted=Accepted(above=0),
        parse=lambda value: value or None,
    )
    ema: float | None = option(
        None,
        "Decay of the EMA (moving average) of the parameters, which is then evaluated and kept; 0 for none",
        accepted=Accepted(least=0, below=1),
    )
    patience: int | None = option(
        None,
        "Early stopping: epochs without a better validation metric after which a phase ends",
        accepted=Accepted(least=1, whole=True),
    )
    batch_norm: str = option(
        "auto",
        "Statistics of the backbone's batch norms: frozen keeps the pretrained ones, batch uses and updates the "
        "batches', auto is frozen for pretrained weights and batch for random ones",
        accepted=one_of("auto", "frozen", "batch"),
    )
    seed: int = option(0, "Seed of everything random", accepted=SEED)

    # Data
    format: str | None = option(None, "Format of the data, where its layout does not tell", fixed=False)
    val_fraction: float = option(
        0.2,
        "Share of the training data to validate on, where there is no split for it",
        accepted=Accepted(above=0, below=1),
        fixed=False,
    )
    annotations: Policy = option(
        "fix", "What happens to faulty boxes and masks: fix, drop (leave out) or error", accepted=_policy, fixed=False
    )
    augment: Augment | str = option(
        "auto",
        "Augmentation in phases that train the backbone: auto (the task's own) or none, or either with operations by "
        "name, as in auto+erasing. Phases that train only the head see every image as it is, so that features are "
        "cached",
        more="Or an `Augment`",
        accepted=_augment,
    )

    # Memory and time
    cache: bool = option(True, "Keep the features of a frozen backbone on disk")
    remat: bool = option(False, "Recompute each stage of the backbone in the backward pass: less memory, more time")

    # The run
    out: str | Path | None = option(
        None,
        "The run folder, which must be empty or new. Without it: runs/DATA-BACKBONE-NUMBER",
        flag="",  # the command requires it
        fixed=False,
    )
    resume: bool = option(False, "Go on with the run in `out` from its last whole checkpoint", fixed=False)
    checkpoint_seconds: float = option(
        60.0, "Seconds between two checkpoints", accepted=Accepted(least=0, infinite=True), fixed=False
    )
    plots: bool = option(True, "Draw plots of the run", fixed=False)
    show: Callable[[Session], Callable[[Event], None]] | None = option(
        None,
        "A function from the session to a display of its events. Without it: plain lines or a progress bar",
        flag="",
        fixed=False,
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainConfig):
    """A configuration that leaves nothing to the task: what the user gave, else the task's own, else the default here.

    The fields below are what a task may decide (`zoo.models.adapter.Training.recipe`), narrowed and with a default.

    Attributes:
        steps: least number of updates; few images would otherwise give too few.
        head_rate: peak learning rate of a new head where `lr` is not given; `zoo.training.plan.HEAD_RATE` if None.
        ema_given: whether the user gave `ema`. Otherwise phases that are too short for it use a lower decay.
    """

    plan: str | Sequence[Phase] = "head+all"
    epochs: int = 10
    steps: int = 0
    head_rate: float | None = None
    batch_size: int = 32
    weight_decay: float = 0.01
    ema: float = 0.0
    ema_given: bool = False

    @classmethod
    def of(cls, adapter: Adapter, config: TrainConfig | None = None, *, pretrained: bool = True) -> Recipe:
        """Fill what a configuration leaves open by the task's own recipe.

        Args:
            pretrained: whether the backbone has weights; `batch_norm="auto"` then keeps their statistics.
        Raises:
            ConfigError: for what is no part of a task's recipe, or is not accepted.
        """
        config = config or TrainConfig()
        if not isinstance(config.optimizer, str) and config.weight_decay is not None:
            raise ConfigError(
                f"weight_decay is {config.weight_decay}, and the optimizer is a function, which brings its own: give "
                "it there, e.g. optimizer=partial(optax.adamw, weight_decay=0.1), or name an optimizer."
            )
        own = {("head_rate" if name == "lr" else name): value for name, value in _own_recipe(adapter).items()}
        augment = own.pop("augment", {})
        given = {one.name: getattr(config, one.name) for one in fields(TrainConfig)}
        if config.epochs is not None:
            own["steps"] = 0
        if config.lr is None and config.rules is not None:
            given["lr"] = own.get("head_rate")
        if isinstance(config.augment, str) and config.augment != "none":
            from zoo.data.augment import named

            given["augment"] = named(config.augment, augment)
        if config.batch_norm == "auto":
            given["batch_norm"] = "frozen" if pretrained else "batch"
        # None means "not given" for these fields; for others, such as `clip` and `patience`, it is a value.
        left = [name for name in _TASKS if given.get(name) is None]
        decided = {name: value for name, value in given.items() if name not in left}
        return cls(**decided, ema_given=config.ema is not None, **{name: own[name] for name in left if name in own})

    def epochs_for(self, updates: float) -> int:
        """How many epochs of so many updates."""
        return max(self.epochs, -int(-self.steps // updates))

    @property
    def augmentation(self) -> Augment | None:
        """What happens to images in phases that train the backbone."""
        return None if isinstance(self.augment, str) else self.augment

    @property
    def statistics(self) -> bool:
        """Whether norms use and update batch statistics."""
        return self.batch_norm == "batch"

    def fixed(self) -> dict[str, Any]:
        """What a resumed run must have the same, as JSON values."""
        values = {one.name: _plain(getattr(self, one.name)) for one in OPTIONS if one.option.fixed}
        return {**values, "ema_given": self.ema_given}


_TASKS = tuple(name for name in Recipe.__annotations__ if name != "ema_given")
"""What a task may decide."""
OPTIONS: tuple[Declared, ...] = tuple(declared(TrainConfig, Recipe))
"""The options, with what holds where neither a user nor a task says anything."""


def _own_recipe(adapter: Adapter) -> Mapping[str, Any]:
    recipe = adapter.training.recipe
    known = ["lr" if name == "head_rate" else name for name in _TASKS] + ["augment"]
    if unknown := sorted(recipe.keys() - set(known)):
        raise ConfigError(
            f"the recipe of {type(adapter).__name__} has {', '.join(unknown)}; accepted: {', '.join(known)}. This "
            "is for the author of the task to correct."
        )
    return recipe


def _plain(value: Any) -> Any:
    """A value for JSON. A function is known by its name: its address differs from process to process."""
    if isinstance(value, partial):
        keywords = {name: _plain(one) for name, one in value.keywords.items()}
        return {"function": _plain(value.func), "args": [*map(_plain, value.args)], "keywords": keywords}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if callable(value):
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return value.item() if hasattr(value, "item") else value  # a number of NumPy

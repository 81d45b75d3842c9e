"""The options of `zoo.train`, each declared once.

The command line, the signature and documentation of `zoo.train`, and the checks are derived from the fields of
`TrainConfig`. `zoo train --help` reads this module, so it must not import jax: modules that do are imported inside
functions, or for type checkers only.
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
    from zoo.data.damage import OnCorrupt
    from zoo.models.adapter import Adapter
    from zoo.training.optimizers import OwnOptimizer
    from zoo.training.plan import Phase
    from zoo.training.rules import Rule
    from zoo.training.schedules import Schedule
    from zoo.training.session import Event, Session


def read_rules(given: list[str] | None) -> list[tuple[str, float | None]] | None:
    """Parse `PATTERN=MULTIPLIER` and `PATTERN=freeze` items as rules, see `zoo.training.rules`."""
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


# Checks that import jax. They are not run for the default value.


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

    Each field declares one option. Where None is the default, the task or the data decides.

    Raises:
        ConfigError: a value is not accepted.
        UnknownNameError: a name is unknown; the message has the nearest ones.
    """

    # What trains, and how fast
    plan: str | Sequence[Phase] | None = option(
        None,
        "What trains: a plan, or several joined by + that are trained one after the other, as in head+all",
        more="Or a sequence of `Phase`",
        accepted=_plans,
        point=PLANS,
        fixed=False,
    )
    rules: Sequence[Rule] | None = option(
        None,
        "Instead of a plan: learning-rate multiplier, or freeze, by parameter pattern; the first match counts",
        more="A rule is (pattern, multiplier or None), see `zoo.training.rules`",
        accepted=_rules,
        flag="--rule",
        taken=list[str] | None,
        metavar="PATTERN=X",
        parse=read_rules,
        fixed=False,
    )
    epochs: int | None = option(
        None, "Epochs over all phases. Some tasks use more for few images", accepted=EPOCHS, fixed=False
    )
    lr: float | None = option(
        None, "Peak learning rate of the last phase. Default: depends on what trains", accepted=RATE, fixed=False
    )
    optimizer: str | OwnOptimizer = option(
        "adamw",
        "Optimizer. The default learning rates suit adamw",
        point=OPTIMIZERS,
        more="Or a function from a learning rate to an optax transformation, such as `optax.adabelief`",
        accepted=row_of(OPTIMIZERS, "a function from a learning rate to an optax transformation"),
    )
    schedule: str | Schedule = option(
        "cosine",
        "Learning-rate schedule of each phase",
        point=SCHEDULES,
        more="Or a function from (peak rate, updates, warm-up updates) to an optax schedule",
        accepted=row_of(SCHEDULES, "a function from (peak rate, updates, warm-up updates) to an optax schedule"),
    )
    batch_size: int | None = option(None, "Images per batch", accepted=BATCH_SIZE)
    accumulate: int = option(
        1,
        "Gradient accumulation: batches whose gradients are averaged into one update",
        accepted=Accepted(least=1, whole=True),
    )
    weight_decay: float | None = option(
        None, "Weight decay of kernels; biases and norms are not decayed", accepted=Accepted(least=0)
    )
    clip: float | None = option(
        1.0,
        "Gradient clipping: largest global norm of the trained parameters' gradients; 0 on the command line, None in "
        "Python, for no clipping",
        accepted=Accepted(above=0),
        parse=lambda value: value or None,
    )
    ema: float | None = option(
        None,
        "Decay of the exponential moving average (EMA) of the parameters, which is evaluated and saved; 0 for none",
        accepted=Accepted(least=0, below=1),
    )
    patience: int | None = option(
        None,
        "Early stopping: number of epochs without a better validation metric after which a phase ends",
        accepted=Accepted(least=1, whole=True),
    )
    batch_norm: str = option(
        "auto",
        "Statistics of the backbone's batch norms: frozen uses the pretrained ones, batch uses those of each batch and "
        "updates the running ones, auto is frozen for pretrained weights and batch for random ones",
        accepted=one_of("auto", "frozen", "batch"),
    )
    seed: int = option(0, "Random seed", accepted=SEED)

    # Data
    format: str | None = option(None, "Dataset format. Default: detected from the files", fixed=False)
    val_fraction: float = option(
        0.2,
        "Share of the training data to validate on if the data has no validation split",
        accepted=Accepted(above=0, below=1),
        fixed=False,
    )
    annotations: Policy = option(
        "fix", "Treatment of faulty boxes and masks: fix, drop (leave out) or error", accepted=_policy, fixed=False
    )
    on_corrupt: OnCorrupt = option(
        "error",
        "Treatment of images and masks that cannot be read: error (all of them are named before the first step) or "
        "skip (leave them out, up to a tenth of a split, and name them)",
        accepted=one_of("error", "skip"),
        fixed=False,
    )
    augment: Augment | str = option(
        "auto",
        "Augmentation in phases that train the backbone: auto (the task's own) or none, either with operations by "
        "name, as in auto+erasing. Phases that train only the head do not augment images, so that features can be "
        "cached",
        more="Or an `Augment`",
        accepted=_augment,
    )

    # Memory and time
    cache: bool = option(True, "Cache the features of a frozen backbone on disk")
    remat: bool = option(
        False, "Rematerialise: recompute each backbone stage in the backward pass, for less memory and more time"
    )

    # The run
    on_nonfinite: str = option(
        "stop",
        "When the loss or a gradient is not finite: stop, or rollback to the last good checkpoint and continue at a "
        "tenth of the learning rate, at most three times",
        accepted=one_of("stop", "rollback"),
        fixed=False,
    )
    out: str | Path | None = option(
        None,
        "Run directory; it must be new or empty. Default: runs/DATA-BACKBONE-NUMBER",
        flag="",  # the command requires it
        fixed=False,
    )
    resume: bool = option(False, "Resume the run in `out` from its last intact checkpoint", fixed=False)
    checkpoint_seconds: float = option(
        60.0, "Seconds between checkpoints", accepted=Accepted(least=0, infinite=True), fixed=False
    )
    plots: bool = option(True, "Draw plots of the run", fixed=False)
    show: Callable[[Session], Callable[[Event], None]] | None = option(
        None,
        "Function from the session to a display of its events. Default: a progress bar on a terminal, else plain lines",
        flag="",
        fixed=False,
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainConfig):
    """A configuration with every value decided: the user's, else the task's own, else the default here.

    The fields below are those that a task may decide (`zoo.models.adapter.Training.recipe`), with a default.

    Attributes:
        steps: smallest number of updates. With few images, the number of epochs is raised to reach it.
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
        """Return a configuration with open values filled in from the task's own recipe.

        Args:
            adapter: the task adapter.
            config: the user's options.
            pretrained: whether the backbone has pretrained weights; `batch_norm="auto"` then uses their statistics.

        Raises:
            ConfigError: the task's recipe has an unknown field, or a value is not accepted.
        """
        config = config or TrainConfig()
        if not isinstance(config.optimizer, str) and config.weight_decay is not None:
            raise ConfigError(
                f"weight_decay is {config.weight_decay}, but an optimizer that is a function has its own weight decay: "
                "set it there, e.g. optimizer=partial(optax.adamw, weight_decay=0.1), or name an optimizer."
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
        open_ = [name for name in _TASKS if given.get(name) is None]
        decided = {name: value for name, value in given.items() if name not in open_}
        return cls(**decided, ema_given=config.ema is not None, **{name: own[name] for name in open_ if name in own})

    def epochs_for(self, updates: float) -> int:
        """Return the number of epochs, for `updates` updates in an epoch."""
        return max(self.epochs, -int(-self.steps // updates))

    @property
    def augmentation(self) -> Augment | None:
        """Augmentation of images in phases that train the backbone; None for none."""
        return None if isinstance(self.augment, str) else self.augment

    @property
    def statistics(self) -> bool:
        """Whether norms use and update batch statistics."""
        return self.batch_norm == "batch"

    def fixed(self) -> dict[str, Any]:
        """Return the values that a resumed run must share, as JSON values."""
        values = {one.name: _plain(getattr(self, one.name)) for one in OPTIONS if one.option.fixed}
        return {**values, "ema_given": self.ema_given}


_TASKS = tuple(name for name in Recipe.__annotations__ if name != "ema_given")
"""What a task may decide."""
OPTIONS: tuple[Declared, ...] = tuple(declared(TrainConfig, Recipe))
"""The options. Their help states the default that holds if neither the user nor the task decides."""


def _own_recipe(adapter: Adapter) -> Mapping[str, Any]:
    recipe = adapter.training.recipe
    known = ["lr" if name == "head_rate" else name for name in _TASKS] + ["augment"]
    if unknown := sorted(recipe.keys() - set(known)):
        raise ConfigError(
            f"the recipe of {type(adapter).__name__} has {', '.join(unknown)}; accepted: {', '.join(known)}. Report "
            "this to the author of the task."
        )
    return recipe


def _plain(value: Any) -> Any:
    """Return a value for JSON. Functions are represented by name, because their address differs between processes."""
    if isinstance(value, partial):
        keywords = {name: _plain(one) for name, one in value.keywords.items()}
        return {"function": _plain(value.func), "args": [*map(_plain, value.args)], "keywords": keywords}
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if callable(value):
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return value.item() if hasattr(value, "item") else value  # a NumPy number

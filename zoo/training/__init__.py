"""Training: one configuration, plans, the compiled step, the loop, checkpoints and the run folder.

Names are imported when they are first used: the command line reads the options of a training without loading jax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy

_HOME = {
    "Augment": "zoo.data.augment",
    "Evaluation": "zoo.training.evaluation",
    "Phase": "zoo.training.plan",
    "Run": "zoo.training.run",
    "TrainConfig": "zoo.training.config",
    "as_model": "zoo.training.evaluation",
    "evaluate": "zoo.training.evaluation",
    "train": "zoo.training.api",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from zoo.data.augment import Augment as Augment
    from zoo.training.api import train as train
    from zoo.training.config import TrainConfig as TrainConfig
    from zoo.training.evaluation import Evaluation as Evaluation
    from zoo.training.evaluation import as_model as as_model
    from zoo.training.evaluation import evaluate as evaluate
    from zoo.training.plan import Phase as Phase
    from zoo.training.run import Run as Run


__getattr__, __dir__ = lazy(globals(), _HOME)

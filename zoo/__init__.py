"""Any pretrained backbone, any vision task, on your data: `create`, `train`, `predict`.

Names are imported on first use, so `import zoo` is fast and does not load jax.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from zoo.lazy import lazy

if find_spec("zoo.plugins") is None:
    raise ImportError(
        f"zoo at {__path__[0]} is a source checkout that is not installed, so its plugins cannot be found: "
        "run `pip install -e .` in it, or start Python in another folder to use an installed zoo."
    )

__version__ = "0.1.0"

_HOME = {
    "check": "zoo.data.inspect",
    "create": "zoo.models.create",
    "load": "zoo.models.store",
    "Model": "zoo.models.model",
    "features": "zoo.models.model",
    "save": "zoo.models.store",
    "cite": "zoo.models.model",
    "train": "zoo.training",
    "evaluate": "zoo.training",
    "export": "zoo.models.export",
    "convert_dataset": "zoo.data.convert",
    "hookimpl": "zoo.registry.hookspecs",
    "BackboneSpec": "zoo.registry.spec",
    "WeightSpec": "zoo.registry.spec",
    "AdapterSpec": "zoo.registry.spec",
    "ModelSpec": "zoo.registry.spec",
    "ZooError": "zoo.errors",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from zoo.data.convert import convert_dataset as convert_dataset
    from zoo.data.inspect import check as check
    from zoo.errors import ZooError as ZooError
    from zoo.models.create import create as create
    from zoo.models.export import export as export
    from zoo.models.model import Model as Model
    from zoo.models.model import cite as cite
    from zoo.models.model import features as features
    from zoo.models.store import load as load
    from zoo.models.store import save as save
    from zoo.registry.hookspecs import hookimpl as hookimpl
    from zoo.registry.spec import AdapterSpec as AdapterSpec
    from zoo.registry.spec import BackboneSpec as BackboneSpec
    from zoo.registry.spec import ModelSpec as ModelSpec
    from zoo.registry.spec import WeightSpec as WeightSpec
    from zoo.training.api import train as train
    from zoo.training.evaluation import evaluate as evaluate


__getattr__, __dir__ = lazy(globals(), _HOME)

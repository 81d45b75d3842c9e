"""Check that a plugin does what it declares. For plugin authors' tests and `zoo plugins check NAME`.

Everything is compared by shape: nothing is allocated, computed or downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zoo.errors import PluginError, ZooError
from zoo.registry.spec import AdapterSpec, BackboneSpec, WeightSpec

if TYPE_CHECKING:
    from zoo.registry.loader import Candidate


def check_backbone(spec: BackboneSpec, *, options: bool = True) -> list[str]:
    """Return what is wrong with a backbone, one sentence each; an empty list if it conforms.

    Its stages' names, kinds, channels and strides must be those declared, for the default options and (with `options`)
    for each other value of each option, and every parameter must belong to exactly one stage.
    """
    variants: list[dict[str, Any]] = [{}]
    if options:
        variants += [{key: value} for key, values in spec.options.items() for value in list(values)[1:]]
    problems = []
    for variant in variants:
        said = f"{spec.name}{f' with {variant}' if variant else ''}"
        try:
            found = [*_wrong_shapes(spec, variant), *_wrong_owners(spec, variant)]
        except Exception as error:
            found = [str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"]
        problems += [f"{said}: {problem}" for problem in found]
    return problems


def _wrong_shapes(spec: BackboneSpec, options: dict[str, Any]) -> Iterator[str]:
    """Yield a sentence for each stage whose stride is not the declared one; wrong shapes raise `PluginError`."""
    # A stride is measured as growth from one image size to a larger one, which does not depend on the padding.
    from zoo.models.backbone import feature_shapes

    spec = spec.built_with(options)
    names = [stage.name for stage in spec.stages]
    small = spec.preprocess.size
    shapes = feature_shapes(spec, small, names, **options)
    maps = [stage for stage in spec.stages if stage.kind == "map"]
    if not maps:
        return
    step = max(stage.stride for stage in maps) * spec.size_multiple
    larger = feature_shapes(spec, (small[0] + step, small[1] + step), names, **options)
    for stage in maps:
        for axis in (1, 2):
            grown = larger[stage.name].shape[axis] - shapes[stage.name].shape[axis]
            if grown * stage.stride != step:
                actual = f"{step / grown:g}" if grown else "unbounded"
                yield f"stage {stage.name} declares stride {stage.stride}, but its stride is {actual}."
                break


def _wrong_owners(spec: BackboneSpec, options: dict[str, Any]) -> Iterator[str]:
    from flax import nnx

    from zoo.models.backbone import abstract

    for path, _ in nnx.to_flat_state(nnx.state(abstract(spec, **options), nnx.Param)):
        name = ".".join(map(str, path))
        owners = [s.name for s in spec.stages if any(f"{name}.".startswith(f"{module}.") for module in s.modules)]
        if len(owners) != 1:
            said = f"stages {' and '.join(owners)} own it" if owners else "no stage owns it"
            yield f"parameter {name} must belong to exactly one stage, but {said}; see Stage.modules."


def check_weights(spec: WeightSpec, backbone: BackboneSpec) -> list[str]:
    """Return what is wrong with weights for `backbone`: it must accept their build options and image size."""
    try:
        backbone.check_options(spec.options)
        backbone.check_size((spec.preprocess or backbone.preprocess).size)
    except ZooError as error:
        return [f"weights {spec.name}: {error}"]
    return []


def check_adapter(spec: AdapterSpec) -> list[str]:
    """Return what is wrong with a task: it must derive from `zoo.models.adapter.Adapter` and be frozen."""
    from zoo.models.adapter import Adapter

    if not issubclass(spec.adapter, Adapter):
        return [f"adapter {spec.name}: {spec.adapter.__name__} must derive from zoo.models.adapter.Adapter."]
    if not spec.adapter.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return [f"adapter {spec.name}: {spec.adapter.__name__} must be a frozen dataclass."]
    return []


def check_plugin(candidate: Candidate) -> Iterator[tuple[str, list[str]]]:
    """Load a plugin and yield (what was checked, what is wrong with it)."""
    from zoo.registry import loader

    given, _, reason, trace = loader.attempt(candidate)
    yield f"import of {candidate.module}", [] if given else [f"{reason}\n{trace}".strip()]
    if given is None:
        return
    specs = given.specs
    for backbone in specs["backbones"].values():
        problems = check_backbone(backbone)
        default = f"{backbone.name}.{backbone.pretrained}"
        if backbone.pretrained and default not in specs["weights"]:
            problems.append(f"{backbone.name}: its default weights {default} are not given by the same plugin.")
        yield f"backbone {backbone.name}", problems
    for weights in specs["weights"].values():
        owner = specs["backbones"].get(weights.backbone)
        if owner is not None:
            yield f"weights {weights.name}", check_weights(weights, owner)
    for adapter in specs["adapters"].values():
        yield f"adapter {adapter.name}", check_adapter(adapter)


def main(name: str) -> int:
    """Check the plugins called `name`; return 1 if anything is wrong."""
    from zoo.registry import loader

    found = [candidate for candidate in loader.discover() if candidate.answers_to(name)]
    if not found:
        raise PluginError(f"no plugin is called {name!r}.")
    wrong = 0
    for candidate in found:
        for subject, problems in check_plugin(candidate):
            print(f"{'ok   ' if not problems else 'WRONG'}  {subject}", flush=True)
            for problem in problems:
                print(f"       {problem}", flush=True)
            wrong += len(problems)
    print(f"{name}: {'conforms' if not wrong else f'{wrong} problems'}.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

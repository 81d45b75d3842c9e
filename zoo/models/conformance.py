"""Check that a plugin does what it declares. For plugin authors' tests and `zoo plugins check NAME`.

`check_backbone`, `check_weights` and `check_adapter` compare shapes: nothing is allocated, computed or downloaded.
`check_values` builds a backbone with random parameters and computes its stages on small images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
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


def check_values(spec: BackboneSpec) -> list[str]:
    """Return what is wrong with the values that a backbone computes, one sentence each; an empty list if nothing is.

    It is built with random parameters and given images of the smallest size that it declares. Images of 1, 3 and 4
    channels must be accepted, and make a difference to the parameters. In evaluation mode, all outputs and gradients
    must be finite and of the images' dtype, two calls equal, jitted or not, and neither images nor state may change.
    """
    try:
        return [f"{spec.name}: {problem}" for problem in [*_wrong_channels(spec), *_wrong_values(spec)]]
    except Exception as error:
        return [f"{spec.name}: {error if isinstance(error, ZooError) else f'{type(error).__name__}: {error}'}"]


def _smallest(spec: BackboneSpec) -> tuple[int, int]:
    """Return the smallest image size that a backbone declares."""
    side = -(-max(spec.min_size, 1) // spec.size_multiple) * spec.size_multiple
    return (side, side)


def _wrong_channels(spec: BackboneSpec) -> Iterator[str]:
    from flax import nnx

    from zoo.models.backbone import abstract, feature_shapes

    names, shapes = [stage.name for stage in spec.stages], {}
    for channels in (1, 3, 4):
        try:
            feature_shapes(spec, _smallest(spec), names, in_channels=channels)
        except Exception as error:
            text = (str(error).splitlines() or [type(error).__name__])[0]
            yield f"images of {_smallest(spec)[0]} pixels and {channels} channels are not accepted: {text}"
            continue
        state = nnx.to_flat_state(nnx.state(abstract(spec, in_channels=channels), nnx.Param))
        shapes[channels] = [(path, variable.get_value().shape) for path, variable in state]
    if len(shapes) == 3 and shapes[1] == shapes[4]:
        yield "in_channels is ignored: 1 and 4 channels give parameters of equal shapes."


def _wrong_values(spec: BackboneSpec) -> Iterator[str]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from zoo.models.backbone import run_stages

    backbone = spec.build(rngs=nnx.Rngs(0), in_channels=3)
    backbone.eval()
    names = [stage.name for stage in spec.stages]
    images = np.random.default_rng(0).normal(size=(2, *_smallest(spec), 3)).astype(np.float32)
    given, graphdef, state = images.copy(), *nnx.split(backbone)
    before = [
        np.array(leaf) for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(backbone, (nnx.Param, nnx.BatchStat))))
    ]

    def run(state: nnx.State, images: Any) -> dict[str, Any]:
        return run_stages(nnx.merge(graphdef, state, copy=True), images, names)

    outputs = {name: np.asarray(value) for name, value in run_stages(backbone, jnp.asarray(images), names).items()}
    # A numpy array on purpose: it can be changed in place, which jax's arrays cannot.
    again, jitted = run(state, images), jax.jit(run)(state, images)
    half = jax.jit(run)(state, jnp.asarray(images, jnp.bfloat16))
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            yield f"stage {name} gives values that are not finite, with random parameters."
        elif not np.array_equal(value, np.asarray(again[name])):
            yield f"stage {name} gives other values at the second call in evaluation mode; it must not be random."
        elif not np.allclose(value, np.asarray(jitted[name]), rtol=1e-3, atol=1e-3 * np.abs(value).max(initial=1e-6)):
            yield f"stage {name} gives other values under jax.jit."
        if value.dtype != np.float32 or half[name].dtype != jnp.bfloat16:
            yield (
                f"stage {name} gives {value.dtype} for float32 images and {half[name].dtype} for bfloat16 images; "
                "arithmetic must follow the dtype of the images."
            )
    if not np.array_equal(images, given):
        yield "the images that it is given are changed."
    after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(backbone, (nnx.Param, nnx.BatchStat))))
    if not all(np.array_equal(one, other) for one, other in zip(before, after, strict=True)):
        yield "a call in evaluation mode changes parameters or statistics."
    if not _finite_gradients(run, state, images, names[-1]):
        yield "the gradient of its last stage is not finite, with random parameters."


def _finite_gradients(run: Any, state: Any, images: Any, last: str) -> bool:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    params, rest = nnx.split_state(state, nnx.Param, ...)

    def loss(params: nnx.State) -> Any:
        return jnp.mean(run(nnx.merge_state(params, rest), images)[last] ** 2)

    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


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
    for backbone in _one_of_each_net(specs["backbones"].values()):
        yield f"values of {backbone.name}", check_values(backbone)
    for weights in specs["weights"].values():
        owner = specs["backbones"].get(weights.backbone)
        if owner is not None:
            yield f"weights {weights.name}", check_weights(weights, owner)
    for adapter in specs["adapters"].values():
        yield f"adapter {adapter.name}", check_adapter(adapter)


def _one_of_each_net(specs: Iterable[BackboneSpec]) -> list[BackboneSpec]:
    """Return the smallest backbone of each module class, which stands for the others of that class."""
    from zoo.models.backbone import abstract, count_params

    smallest: dict[str, tuple[int, BackboneSpec]] = {}
    for spec in specs:
        try:
            size, kind = count_params(spec), type(abstract(spec)).__qualname__
        except Exception:  # the check of its shapes has said so
            continue
        if kind not in smallest or size < smallest[kind][0]:
            smallest[kind] = (size, spec)
    return [spec for _, spec in smallest.values()]


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

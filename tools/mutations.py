"""Put realistic faults into a copy of the project, one at a time, and check whether the tests notice.

    python tools/mutations.py            every fault, with the tests that should notice it
    python tools/mutations.py flip lock  the faults whose names hold one of these words
    python tools/mutations.py --list     their names

Prints one line for each fault: `caught` with the first test that failed, or `MISSED`. Exits with 1 if any was missed.
The copy is in a temporary folder; the working tree is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("zoo", "plugins", "adapters", "tests", "examples", "registry.toml", "pyproject.toml", "setup.py")
COPIED += ("MANIFEST.in", "README.md", "LICENSE")


@dataclass(frozen=True)
class Fault:
    """A wrong line.

    Attributes:
        name: what is wrong. file: where. old, new: the right text, which must be there once, and the wrong one.
        tests: arguments of pytest that select the tests that are expected to see it.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _nets(names: str) -> tuple[str, ...]:
    return "tests/test_every_backbone.py", "-k", f"equals_the_reference and ({names})"


def _in_one_row(change: str) -> str:
    """A change of the style of MobileNetV3's layers for one variant alone."""
    line = " " * 8 + 'if name == "mobilenetv3_large_075":\n' + " " * 12 + f"style = replace(style, {change})\n"
    return " " * 8 + "stages = plan(name)\n" + line


FAULTS = (
    Fault(
        "padding of one middle row",
        "plugins/mobilenetv3.py",
        "        stages = plan(name)\n",
        _in_one_row('padding="same"'),
        _nets("mobilenetv3_large"),
    ),
    Fault(
        "epsilon of one middle row",
        "plugins/mobilenetv3.py",
        "        stages = plan(name)\n",
        _in_one_row("eps=1e-3"),
        _nets("mobilenetv3_large"),
    ),
    Fault(
        "GELU of one middle row",
        "plugins/clip.py",
        'act = "quick_gelu" if "quickgelu" in name else "gelu"',
        'act = "quick_gelu" if "quickgelu" in name or name == "vit_base_patch32_clip_224" else "gelu"',
        _nets("vit_base_patch32_clip"),
    ),
    Fault(
        "stride of a stage",
        "plugins/regnet.py",
        "first = Block(inputs, width, 2, side,",
        'first = Block(inputs, width, 1 if index == 3 and name == "regnety_016" else 2, side,',
        ("tests/test_every_backbone.py", "-k", "regnety_016"),
    ),
    Fault(
        "width of the groups of one row",
        "plugins/regnet.py",
        '"regnetx_016": (80, 34.01, 2.25, 24, 18, "tv2_in1k")',
        '"regnetx_016": (80, 34.01, 2.25, 48, 18, "tv2_in1k")',
        _nets("regnetx_016"),
    ),
    Fault(
        "mean and variance swapped",
        "zoo/layers/norms.py",
        "mean, var = self.mean[...], self.var[...]",
        "var, mean = self.mean[...], self.var[...]",
        _nets("resnet18"),
    ),
    Fault(
        "suppression at the threshold itself",
        "zoo/dense/nms.py",
        "(iou(boxes[best][None], boxes) > threshold)",
        "(iou(boxes[best][None], boxes) >= threshold)",
        ("tests/test_dense_boxes.py",),
    ),
    Fault(
        "one detection short",
        "zoo/dense/nms.py",
        "_, index, filled = lax.fori_loop(0, count, keep_best, start)",
        "_, index, filled = lax.fori_loop(0, count - 1, keep_best, start)",
        ("tests/test_dense_boxes.py",),
    ),
    Fault(
        "frozen modules in training mode",
        "zoo/models/model.py",
        "        super().train(**attributes)\n        self._hold_frozen()\n",
        "        super().train(**attributes)\n",
        ("tests/test_freezing.py",),
    ),
    Fault(
        "a rule that misses modules at the top",
        "zoo/training/plans.py",
        'yield f"backbone.{module}" if bare else f"backbone.{module}.*"',
        'yield f"backbone.{module}" if bare else f"backbone.{module}.*.*"',
        ("tests/test_every_backbone.py", "-k", "plan and resnet"),
    ),
    Fault(
        "cache key without preprocessing",
        "zoo/activations/cache.py",
        '        "preprocess": asdict(card.preprocess),\n',
        "",
        ("tests/test_cache.py",),
    ),
    Fault(
        "split that is not stratified",
        "zoo/data/split.py",
        "    if not dataset.targets.exclusive:\n        return [rng.permutation(len(dataset))]\n",
        "    if dataset.kind:\n        return [rng.permutation(len(dataset))]\n",
        ("tests/test_data_split.py",),
    ),
    Fault(
        "macro mean over absent classes",
        "adapters/classifier/metrics.py",
        "present = actual > 0",
        "present = actual >= 0",
        ("tests/test_classifier.py",),
    ),
    Fault(
        "resumed with another key",
        "zoo/training/loop.py",
        "key = jax.random.fold_in(jax.random.key(recipe.seed), index)",
        "key = jax.random.fold_in(jax.random.key(recipe.seed), index + 7 * at.batch + 7 * at.epoch)",
        ("tests/test_checkpoint.py", "tests/test_training.py"),
    ),
    Fault(
        "resumed in another order",
        "zoo/training/loop.py",
        "number = at.phase * STREAM + at.epoch",
        "number = at.phase * STREAM + at.epoch + at.batch",
        ("tests/test_checkpoint.py", "tests/test_training.py"),
    ),
    Fault(
        "labels reversed in an export",
        "zoo/models/export.py",
        '"label_names": list(model.labels)',
        '"label_names": list(model.labels)[::-1]',
        ("tests/test_export.py",),
    ),
    Fault(
        "boxes that a flip does not move",
        "zoo/targets/spatial/boxes.py",
        "    x1, x2 = jnp.where(at.flip, width - x2, x1), jnp.where(at.flip, width - x1, x2)\n",
        "",
        ("tests/test_augment_boxes.py",),
    ),
    Fault(
        "mask off by one pixel",
        "zoo/targets/spatial/base.py",
        "y = at.top + (jnp.arange(size[0], dtype=jnp.float32) + 0.5) * at.height / size[0]",
        "y = at.top + (jnp.arange(size[0], dtype=jnp.float32) + 1.5) * at.height / size[0]",
        ("tests/test_augment_boxes.py", "tests/test_data_masks.py", "tests/test_data_augment.py"),
    ),
    Fault(
        "decay of the moving average",
        "zoo/training/step.py",
        "lambda a, p: keep * a + (1 - keep) * p",
        "lambda a, p: (1 - keep) * a + keep * p",
        ("tests/test_training_options.py", "tests/test_training.py"),
    ),
    Fault(
        "weight decay on norms",
        "zoo/training/step.py",
        "lambda leaf: leaf.ndim > 1",
        "lambda leaf: leaf.ndim > 0",
        ("tests/test_training_options.py", "tests/test_training.py"),
    ),
    Fault(
        "order of a decoder's skips",
        "adapters/segmenter/unet.py",
        "jnp.concatenate([x, skip], axis=-1)",
        "jnp.concatenate([skip, x], axis=-1)",
        ("tests/test_decoders.py",),
    ),
    Fault(
        "wide maps of U-Net as they are",
        "adapters/segmenter/unet.py",
        "wide = inputs > 2 * outputs",
        "wide = False",
        ("tests/test_decoders.py",),
    ),
    Fault(
        "offset of anchors",
        "zoo/dense/points.py",
        "np.stack([(x + np.float32(offset)) * right,",
        "np.stack([(x + np.float32(offset) + np.float32(0.25)) * right,",
        ("tests/test_rcnn.py", "tests/test_fcos.py"),
    ),
    Fault(
        "wrong class of a COCO category",
        "zoo/data/readers/coco.py",
        "labels.append(index.get(category, UNKNOWN))",
        "labels.append(min(category, len(index) - 1))",
        ("tests/test_readers_boxes.py",),
    ),
    Fault(
        "wrong column of a CSV file",
        "zoo/data/readers/csv.py",
        "image = next((name for name in IMAGE_COLUMNS if name in header), None)",
        "image = next((name for name in header if name in IMAGE_COLUMNS + LABEL_COLUMNS), None)",
        ("tests/test_data_readers.py",),
    ),
    Fault(
        "lock that is not verified",
        "zoo/weights/hub.py",
        "    if expected.sha256 and digest != expected.sha256:\n        raise _changed(wanted, expected, digest)\n",
        "",
        ("tests/test_fetch.py", "tests/test_fetch_faults.py"),
    ),
    Fault(
        "licence that is not asked for",
        "zoo/models/request.py",
        'row.commercial_use == "no" and not request.accept_license',
        'row.commercial_use == "never" and not request.accept_license',
        ("tests/test_hub_models.py",),
    ),
)


def _copy(target: Path) -> None:
    """Copy the project to `target`, beside a link to the assets."""
    project = target / "zoo"
    project.mkdir()
    for name in (*COPIED, "registry.toml", "docs", "tools"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / name)
    if (ROOT.parent / "shared").exists():
        (target / "shared").symlink_to((ROOT.parent / "shared").resolve())


FINDER = """
import importlib.util, sys
from importlib.machinery import PathFinder
PLACES = {{"zoo.plugins": "{root}/plugins", "zoo.adapters": "{root}/adapters", "zoo": "{root}/zoo"}}
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in PLACES:
            where = PLACES[name]
            file = where + "/__init__.py"
            return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[where])
sys.meta_path.insert(0, Finder)
"""


def _run(project: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Return whether a test failed, and the first one that did."""
    hooks = project.parent / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(FINDER.format(root=project))  # the copy stands in for what is installed
    environment = {**os.environ, "PYTHONPATH": str(hooks), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        raise SystemExit(f"the tests {tests} did not run:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return result.returncode == 1, failed[0].split(" - ")[0] if failed else ""


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    if words == ["--list"]:
        print("\n".join(fault.name for fault in FAULTS))
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        _copy(Path(folder))
        project = Path(folder) / "zoo"
        for fault in chosen:
            file, began = project / fault.file, time.monotonic()
            text = file.read_text("utf-8")
            if text.count(fault.old) != 1:
                raise SystemExit(f"{fault.name}: the text is {text.count(fault.old)} times in {fault.file}.")
            file.write_text(text.replace(fault.old, fault.new), "utf-8")
            caught, first = _run(project, fault.tests)
            file.write_text(text, "utf-8")
            missed += not caught
            said = f"caught  {fault.name}: {first}" if caught else f"MISSED  {fault.name}"
            print(f"{said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults were caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

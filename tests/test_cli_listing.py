"""`zoo list`, `show`, `plugins`, `doctor` in processes of their own: what they say, their exit codes, and no jax."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_kit as kit
import pytest
from typer.testing import CliRunner

import zoo.registry
from zoo import doctor
from zoo.cli.app import app
from zoo.models.backbone import count_params
from zoo.registry import derive
from zoo.registry.catalogue import KINDS
from zoo.registry.loader import Contribution
from zoo.registry.spec import Preprocess, WeightSpec

HEAVY = ("jax", "flax", "numpy", "orbax", "grain", "optax", "matplotlib")


WITHOUT_JAX = (
    ("--help",),
    ("list",),
    ("list", "--help"),
    ("list", "backbones"),
    ("list", "weights", "resnet*", "--json"),
    ("list", "tasks"),
    ("list", "models"),
    ("list", "plugins"),
    ("show", "resnet18"),
    ("show", "resnet18.a1_in1k", "--json"),
    ("show", "classifier"),
)
ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
import zoo.registry
from zoo.cli import main

every, names = map(json.loads, sys.argv[1:])
for args in every:
    sys.argv, printed, code = ["zoo", *args], io.StringIO(), 0
    zoo.registry.reset()
    with contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    heavy = [name for name in names if name in sys.modules]
    print(json.dumps([args, code, heavy, bool(printed.getvalue())]))
"""


def test_listing_and_help_import_no_jax():
    result = kit.run("-c", ONE_AFTER_THE_OTHER, json.dumps(WITHOUT_JAX), json.dumps(HEAVY))
    assert (result.returncode, result.stderr) == (0, "")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [tuple(args) for args, *_ in rows] == list(WITHOUT_JAX)
    for args, code, heavy, printed in rows:
        assert (code, heavy) == (0, []), args
        assert printed or args == ["list", "models"], args


def test_import_zoo_imports_no_jax():
    program = f"import sys, zoo, zoo.registry.spec; print([m for m in {HEAVY!r} if m in sys.modules], zoo.ZooError)"
    assert kit.run("-c", program).stdout.strip() == "[] <class 'zoo.errors.ZooError'>"


def test_import_zoo_from_a_bare_checkout_says_what_to_do(tmp_path: Path):
    (tmp_path / "zoo").mkdir()
    for name in ("__init__.py", "lazy.py"):
        (tmp_path / "zoo" / name).write_text((kit.ROOT / "zoo" / name).read_text())
    # Isolated from site-packages, so that the plugins of the installation are not found either.
    result = subprocess.run(
        [sys.executable, "-S", "-c", "import zoo"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "ImportError: zoo at" in result.stderr.splitlines()[-1]
    assert "run `pip install -e .`" in result.stderr.splitlines()[-1]


def printed(*args: str) -> str:
    """Return what a command prints, run in this process: for tests of the text alone."""
    result = CliRunner(env={"ZOO_CONFIG": "/nonexistent"}).invoke(app, args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_summary_counts_every_kind():
    counts = {line.split()[1]: int(line.split()[0]) for line in printed("list").split("\n\n")[0].splitlines()}
    assert list(counts)[:5] == ["backbones", "weights", "tasks", "models", "plugins"]
    assert set(counts) >= {"data.format", "detector.head", "segmenter.decoder", "style.method", "zoo.command"}
    assert counts == json.loads(printed("list", "--json"))
    assert counts["backbones"] == len(json.loads(printed("list", "backbones", "--json"))) > 25
    assert counts["weights"] == len(json.loads(printed("list", "weights", "--json"))) > 50


def test_patterns_are_parts_of_names_or_globs():
    def names(*args: str) -> list[str]:
        return [entry["name"] for entry in json.loads(printed("list", *args, "--json"))]

    assert names("backbones", "SqueezeNet1") == ["squeezenet1_0", "squeezenet1_1"]
    assert names("backbones", "squeezenet?_1") == ["squeezenet1_1"]
    assert names("backbones", "net1_1") == ["squeezenet1_1"]
    assert names("backbones", "nothing-like-it") == []
    assert {"classifier", "style"} <= set(names("tasks"))


def test_listing_in_columns():
    lines = printed("list", "backbones", "resnet18").splitlines()
    assert lines[0].split() == ["name", "family", "parameters", "channels", "stride", "input", "weights", "default"]
    assert lines[1].split() == ["resnet18", "ResNet", "11.2", "M", "512", "32", "224", "7", "a1_in1k"]
    assert [line.split()[0] for line in lines[1:]] == ["resnet18", "resnet18d", "seresnet18"]


def test_show_says_all_about_a_backbone():
    page = printed("show", "resnet18")
    for part in (
        "11,176,512",
        "layer4  map        512      32",
        "224x224 RGB, bicubic, crop 0.95",
        "code licence     Apache-2.0",
        "resnet18.a1_in1k",
        "cc-by-nc-4.0",
        "@inproceedings{he2016deep,",
        "https://arxiv.org/abs/1512.03385",
    ):
        assert part in page, part
    entry = json.loads(printed("show", "resnet18", "--json"))
    assert entry["kind"] == "backbone"
    assert entry["stages"][-1] == {"name": "layer4", "kind": "map", "channels": 512, "stride": 32}
    assert entry["preprocess"]["size"] == [224, 224]
    assert "resnet18.a1_in1k" in [weights["name"] for weights in entry["weights"]]


def test_show_weights_and_tasks():
    page = printed("show", "mobilenetv2_100.coral_in1k")
    for part in ("padding = same", "mean (0.5, 0.5, 0.5)", "apache-2.0, commercial use: yes", "(its backbone)"):
        assert part in page, part
    entry = json.loads(printed("show", "mobilenetv2_100.coral_in1k", "--json"))
    assert (entry["kind"], entry["options"], len(entry["sha256"])) == ("weights", {"padding": "same"}, 64)
    page = printed("show", "classifier")
    assert "\n  dropout = 0.0    accepted: a finite number at least 0 and below 1\n      Dropout rate before" in page
    assert "\n  loss = ce    accepted: a weighted sum of ce\n" in page and "multi_label" not in page
    page = printed("show", "detector")
    assert "\n  head = fcos    accepted: fcos | rcnn | yolox\n" in page and "\n  nms_iou = null    accepted:" in page
    assert "(task)" in page and not any(name in page for name in ("max_boxes", "category_ids", "labels ="))
    options = json.loads(printed("show", "segmenter", "--json"))["options"]
    assert options["tta_scales"].keys() == {"description", "accepted", "default", "adjustable"}
    assert options["tta_scales"]["adjustable"] and not options["decoder"]["adjustable"] and "room" not in options
    assert (options["dropout"]["default"], options["tversky"]["default"]) == (None, [0.3, 0.7])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("show", "resnet1888"), "unknown name 'resnet1888'. Nearest: resnet18"),
        (("list", "adapters"), "`zoo list adapters` is now `zoo list tasks`"),
        (("list", "losses"), "several extension points have losses: use `zoo list classifier.loss`, or segmenter.loss"),
        (("list", "backbone"), "unknown kind 'backbone'. Nearest: backbones"),
        (("list", "backbones", "resnet1888"), "unknown backbone 'resnet1888'. Nearest: resnet18"),
        (("plugins", "check", "resnett"), "unknown plugin 'resnett'. Nearest: resnet"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("list", "--frobnicate"), "No such option"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(args: tuple[str, ...], said: str):
    result = kit.called(*args)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_traceback_is_shown_when_asked_for():
    assert "Traceback" in kit.zoo("--traceback", "show", "resnet1888").stderr
    result = kit.zoo("show", "resnet1888", ZOO_TRACEBACK="1")
    assert (result.returncode, "Traceback" in result.stderr) == (2, True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, without settings of the user."""
    monkeypatch.setenv("ZOO_CONFIG", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    zoo.registry.reset()
    yield tmp_path
    zoo.registry.reset()


def test_a_bad_overlay_gets_one_sentence_and_exit_code_2(here: Path):
    (here / "registry.toml").write_text("[plugin\n")
    for args in (("list",), ("show", "resnet18"), ("plugins",)):
        result = kit.called(*args)
        assert result.returncode == 2
        assert str(here / "registry.toml") in result.stderr
        assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "list", "weights", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=kit.ROOT,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_private_weights_pins_and_disabled_plugins_in_the_listing(here: Path):
    (here / "registry.toml").write_text(
        '[weights."resnet18.mine"]\nsource = "mine.safetensors"\nnum_classes = 3\n'
        '[pins."resnet18.a1_in1k"]\nrevision = "abc"\n[plugins]\ndisable = ["squeezenet"]\n'
    )
    entries = json.loads(kit.called("list", "weights", "--json").stdout)
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["resnet18.mine"]["num_classes"] == 3
    assert by_name["resnet18.mine"]["distribution"] == str(here / "registry.toml")
    assert by_name["resnet18.a1_in1k"]["revision"] == "abc"
    assert "squeezenet" not in kit.called("list", "backbones").stdout
    page = kit.called("list", "plugins").stdout
    assert [line.split()[3] for line in page.splitlines() if line.startswith("squeezenet")] == ["disabled"]


def test_broken_plugins_are_reported_and_the_rest_is_listed(tmp_path: Path):
    kit.distribution(tmp_path, "broken", "print('noise'); raise RuntimeError('no such luck')")
    kit.distribution(tmp_path, "sound", kit.weights_plugin("net.sound", extra="print('noise')"))
    result = kit.zoo("list", "weights", "net.*", "--json", paths=(tmp_path,))
    assert [entry["name"] for entry in json.loads(result.stdout)] == ["net.sound"]
    assert "plugin broken/broken is not used (failed): RuntimeError: no such luck" in result.stderr
    found = kit.records(kit.zoo("plugins", "--json", paths=(tmp_path,)))
    assert (found["broken"]["state"], found["broken"]["reason"]) == ("failed", "RuntimeError: no such luck")
    assert "no such luck" in found["broken"]["traceback"]
    assert {found[name]["state"] for name in ("sound", "resnet", "squeezenet", "classifier")} == {"ok"}
    result = kit.zoo("list", "backbones", paths=(tmp_path,), ZOO_STRICT_PLUGINS="1")
    assert result.returncode == 2
    assert "broken/broken (broken_plugin) failed" in result.stderr


def test_names_of_two_distributions_are_listed_qualified(here: Path, monkeypatch: pytest.MonkeyPatch):
    """But for zoo's own, whose bare name means it whatever else is installed."""
    kit.distribution(here, "mine", kit.backbone_plugin("resnet18", "net"))
    kit.distribution(here, "other", kit.backbone_plugin("net"))
    monkeypatch.syspath_prepend(str(here))
    names = [e["name"] for e in json.loads(kit.called("list", "backbones", "--json").stdout)]
    assert {"resnet18", "mine/resnet18", "mine/net", "other/net"} <= set(names) and "net" not in names
    result = kit.called("show", "net")
    assert result.returncode == 2
    assert "mine/net or other/net" in result.stderr
    assert "ResNet" in kit.called("show", "resnet18").stdout
    assert "ResNet" in kit.called("show", "flax-zoo/resnet18").stdout


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.exhaustive)])
def test_many_weights_are_listed_from_a_catalogue_alone(tmp_path: Path, count: int):
    names = [f"resnet{i % 100}.run{i:05d}" for i in range(count)]
    specs = {
        name: WeightSpec(name, source=f"hf://timm/{name}", license="mit", preprocess=Preprocess(crop_pct=0.95))
        for name in names
    }
    text = derive.catalogue(
        [("many_plugin", Contribution({**dict.fromkeys(KINDS, {}), "weights": specs}))], "test", count_params
    )
    kit.distribution(tmp_path, "many", "raise RuntimeError('imported')", catalogue=text)
    result = kit.zoo("list", "weights", "*.run*", paths=(tmp_path,))
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == count + 1
    listed = json.loads(kit.zoo("list", "weights", "resnet18.run", "--json", paths=(tmp_path,)).stdout)
    assert [entry["name"] for entry in listed] == sorted(n for n in names if n.startswith("resnet18."))
    assert listed[0]["source"] == "hf://timm/resnet18.run00018"
    assert listed[0]["preprocess"]["crop_pct"] == 0.95


def test_check_of_a_plugin_that_conforms():
    result = kit.zoo("plugins", "check", "squeezenet")
    assert result.returncode == 0
    assert "ok     backbone squeezenet1_1" in result.stdout
    assert result.stdout.endswith("squeezenet: conforms.\n")


WRONG = """import zoo
from flax import nnx
from zoo.models.backbone import Backbone
from zoo.layers import Conv
from zoo.registry.spec import ClassifierLayout, Stage

class Net(Backbone):
    def __init__(self, *, rngs, in_channels=3):
        self.stem = Conv(in_channels, 8, 3, 2, 1, rngs=rngs)
        self.body = Conv(8, 16, 3, 1, 1, rngs=rngs)
        self.extra = Conv(8, 16, 3, 1, 1, rngs=rngs)

    def stages(self):
        return {"stem": self.stem, "body": self.body}

def spec(name, channels, stride, owned=("body", "extra")):
    stages = (Stage("stem", 8, 2, modules=("stem",)), Stage("body", channels, stride, modules=owned))
    return zoo.BackboneSpec(name, "Wrong", Net, stages, ClassifierLayout("fc"))

@zoo.hookimpl
def zoo_backbones():
    return [spec("right", 16, 2), spec("channels", 24, 2), spec("stride", 16, 4), spec("owner", 16, 2, ("body",))]
"""


def test_check_of_a_plugin_that_does_not_do_what_it_declares(tmp_path: Path):
    kit.distribution(tmp_path, "wrong", WRONG)
    result = kit.zoo("plugins", "check", "wrong", paths=(tmp_path,))
    assert result.returncode == 1
    said = result.stdout
    assert "ok     backbone right" in said
    assert "stage body gives (112, 112, 16), but its spec declares kind map with 24 channels" in said
    assert "stage body declares stride 4, but its stride is 2." in said
    assert "parameter extra.kernel must belong to exactly one stage, but no stage owns it" in said
    assert "WRONG  backbone owner" in said


def test_check_of_a_plugin_that_hangs(tmp_path: Path):
    kit.distribution(tmp_path, "sleeper", "import time; time.sleep(600)")
    result = kit.zoo("plugins", "check", "sleeper", "--timeout", "2", paths=(tmp_path,))
    assert result.returncode == 1
    assert "not finished after 2 s" in result.stdout


def test_a_plugin_s_own_catalogue_can_be_printed(tmp_path: Path):
    kit.distribution(tmp_path, "sound", kit.weights_plugin("net.sound", extra="print('noise')"))
    result = kit.zoo("plugins", "catalogue", "sound", paths=(tmp_path,))
    assert '[plugin."sound_plugin".weights]' in result.stdout
    assert "noise" not in result.stdout
    (tmp_path / "sound_plugin" / "registry.toml").write_text(result.stdout)
    (tmp_path / "sound_plugin" / "__init__.py").write_text("raise RuntimeError('imported')")
    result = kit.zoo("list", "weights", "net.sound", "--json", paths=(tmp_path,))
    assert json.loads(result.stdout)[0]["source"] == "hf://org/net.sound"


def test_doctor_finds_nothing_wrong(tmp_path: Path):
    result = kit.zoo("doctor", "--json", ZOO_CACHE=str(tmp_path / "cache"), HF_HUB_CACHE=str(tmp_path / "hub"))
    report = json.loads(result.stdout)
    sections = {section["title"]: section for section in report["sections"]}
    assert (result.returncode, report["ok"]) == (0, True), report
    assert {"zoo", "python", "jax", "flax", "orbax-checkpoint"} <= set(sections["versions"]["facts"])
    assert sections["devices"]["facts"]["devices"]
    assert str(tmp_path / "cache") in sections["folders"]["facts"]["cache"]
    assert sections["plugins"]["facts"]["flax-zoo/resnet"] == "ok"


def test_doctor_reports_what_is_wrong(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "devices", lambda *limit: doctor.Section("devices"))  # those have a test of their own
    kit.distribution(here / "site", "broken", "print('noise'); raise RuntimeError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(here / "site"))  # plugins are loaded in a process
    monkeypatch.setenv("ZOO_PLUGINS", "broken")
    (here / "registry.toml").write_text('[pins."a.b"]\nnonsense = 1\n')
    result = kit.called("doctor")
    assert result.returncode == 1
    assert f'{here / "registry.toml"}: unknown key pins."a.b".nonsense' in result.stdout
    assert "the plugins cannot be loaded" in result.stdout  # for the same reason
    (here / "registry.toml").unlink()
    result = kit.called("doctor")
    assert result.returncode == 1
    assert "plugin broken/broken failed: RuntimeError: no such luck" in result.stdout
    assert result.stdout.endswith("\n1 problem.\n")


def test_doctor_knows_another_import_package_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert doctor.shadows().problems == []
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("")
    info = tmp_path / "zoo-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 3.0\n")
    (info / "RECORD").write_text("zoo/__init__.py,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder, owner = doctor.shadows().problems
    assert f"{tmp_path / 'zoo'} is another import package `zoo`" in folder
    assert "`pip uninstall zoo`" in owner


def test_doctor_names_the_plugin_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kit.distribution(tmp_path, "sleeper", "import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ZOO_PLUGINS", "sleeper")  # the others import jax, which takes long on a busy machine
    for limit in (2, 60):  # a busy machine may need more than the first to get there
        (problem,) = doctor.plugins(limit=limit).problems
        if "while loading" in problem:
            break
    assert f"no answer within {limit} s, while loading sleeper/sleeper" in problem


def test_doctor_advises_a_newer_python(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "RECOMMENDED", sys.version_info[:2])
    assert "advice" not in doctor.versions().facts
    monkeypatch.setattr(doctor, "RECOMMENDED", (sys.version_info[0], sys.version_info[1] + 1))
    section = doctor.versions()
    assert "3.12 or newer" in section.facts["advice"] and section.problems == []


def test_doctor_survives_a_backend_that_does_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonesuch")
    (problem,) = doctor.devices(limit=60).problems
    assert "jax cannot list its devices" in problem and "nonesuch" in problem
    assert "JAX_PLATFORMS=cpu" in problem


def test_doctor_knows_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(blocked / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", os.fspath(tmp_path))
    (problem,) = doctor.folders().problems
    assert f"{blocked} cannot be written to" in problem

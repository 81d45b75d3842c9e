"""The loader sets a broken plugin aside, and look-ups never resolve a conflict silently."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import plugin_kit as kit
import pytest

from zoo.errors import ConfigError, FetchError, PluginError, UnknownNameError
from zoo.registry import Registry, lookup
from zoo.registry.spec import Preprocess, WeightSpec

ROOT = Path(__file__).resolve().parent.parent
FLAX_ZOO = {found.name for found in pkgutil.iter_modules([str(ROOT / "plugins"), str(ROOT / "adapters")])}
FLAX_ZOO |= {
    f"zoo-{found.parent.name}" for found in (ROOT / "zoo").glob("*/parts.py") if found.parent.name != "registry"
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path for distributions; the user's own settings are empty, and modules are forgotten after."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("ZOO_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    for name in ("ZOO_PLUGINS", "ZOO_DISABLE_PLUGINS", "ZOO_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.endswith("_plugin"):
            del sys.modules[name]
    importlib.invalidate_caches()


def states(registry: Registry) -> dict[str, str]:
    return {record.name: record.state for record in registry.records()}


def record(registry: Registry, name: str):
    return next(record for record in registry.records() if record.name == name)


BROKEN = {
    "raises": ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
    "syntax": ("def f(:", "SyntaxError"),
    "misspelt": ("import zoo\n@zoo.hookimpl\ndef zoo_backbone():\n    return []", "did you mean zoo_backbones?"),
    "argument": ("import zoo\n@zoo.hookimpl\ndef zoo_backbones(size):\n    return []", "PluginValidationError"),
    "unmarked": ("def zoo_backbones():\n    return []", "not marked as a hook"),
    "hook-raises": ("import zoo\n@zoo.hookimpl\ndef zoo_weights():\n    return 1 / 0", "ZeroDivisionError"),
    "not-a-list": ("import zoo\n@zoo.hookimpl\ndef zoo_weights():\n    return 3", "TypeError"),
    "not-a-spec": ("import zoo\n@zoo.hookimpl\ndef zoo_weights():\n    return ['x']", "must give WeightSpec values"),
    "bad-name": (kit.weights_plugin("no_tag"), "the name must consist of arch.tag"),
    "twice": (kit.weights_plugin("a.b", "a.b"), "returns 'a.b' twice"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_set_aside_and_the_others_work(site: Path, fault: str):
    source, reason = BROKEN[fault]
    kit.distribution(site, "broken", source)
    kit.distribution(site, "sound", kit.weights_plugin("net.sound"))
    registry = Registry()
    found = record(registry, "broken")
    assert found.state == "failed"
    assert reason in found.reason
    assert "Traceback" in found.traceback
    assert found.distribution == "broken" and found.version == "1.0"
    assert {name: state for name, state in states(registry).items() if name != "broken"} == dict.fromkeys(
        FLAX_ZOO | {"sound"}, "ok"
    )
    assert registry.weights("net.sound").source == "hf://org/net.sound"
    with pytest.raises(PluginError, match="broken"):
        Registry(strict=True).load_all()


def test_strict_by_environment(site: Path, monkeypatch: pytest.MonkeyPatch):
    kit.distribution(site, "broken", "raise RuntimeError('no such luck')")
    monkeypatch.setenv("ZOO_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"broken/broken \(broken_plugin\) failed: RuntimeError: no such luck"):
        Registry().backbones()


def test_ctrl_c_is_not_swallowed(site: Path):
    kit.distribution(site, "interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry().load_all()


def test_a_damaged_distribution_does_not_hide_plugins(site: Path):
    kit.distribution(site, "sound", kit.weights_plugin("net.sound"))
    bad = site / "bad-1.0.dist-info"
    bad.mkdir()
    (bad / "METADATA").write_text("")
    (bad / "entry_points.txt").write_bytes(b"[zoo.plugins]\nthis is no entry point\n\xff\xfe")
    assert states(Registry())["sound"] == "ok"


def test_a_plugin_for_another_interface_is_incompatible(site: Path):
    kit.distribution(site, "future", "ZOO_API = 99\n" + kit.weights_plugin("net.future"))
    registry = Registry()
    found = record(registry, "future")
    assert found.state == "incompatible"
    assert "version 99" in found.reason
    with pytest.raises(UnknownNameError, match="set aside: future/future"):
        registry.weights("net.future")


BAD_BACKBONES = {
    "Stage('stem', 8, 2), Stage('stem', 8, 2)": "two stages are called 'stem'",
    "Stage('stem', 0, 2),": "channels 0",
    "Stage('stem', 8, 2, kind='cube'),": "kind is 'cube'; accepted: map, tokens, vector",
    "Stage('a', 8, 2, modules=('m',)), Stage('b', 8, 2, modules=('m',))": "both own module 'm'",
    "": "non-empty tuple",
}


@pytest.mark.parametrize("stages", BAD_BACKBONES)
def test_backbone_specs_are_validated(site: Path, stages: str):
    source = kit.backbone_plugin("net").replace("(Stage('stem', 8, 2, modules=('stem',)),)", f"({stages})")
    kit.distribution(site, "broken", source)
    assert BAD_BACKBONES[stages] in record(Registry(), "broken").reason


def test_disabled_plugins_are_never_imported(site: Path, monkeypatch: pytest.MonkeyPatch):
    module = kit.distribution(site, "other", kit.weights_plugin("net.other"))
    for registry in (Registry(disable=["other"]), Registry(disable=["other/other"]), Registry(disable=[module])):
        assert states(registry)["other"] == "disabled"
        assert record(registry, "other").reason == "disabled by argument"
        with pytest.raises(UnknownNameError):
            registry.weights("net.other")
    assert module not in sys.modules
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", " other,")
    assert record(Registry(), "other").reason == "disabled by $ZOO_DISABLE_PLUGINS"
    assert module not in sys.modules


def test_a_plugin_to_disable_that_there_is_not_is_an_error(site: Path, monkeypatch: pytest.MonkeyPatch):
    kit.distribution(site, "other", kit.weights_plugin("net.other"))
    with pytest.raises(UnknownNameError, match="unknown plugin 'othr'. Nearest: other"):
        Registry(disable=["othr"]).records()
    monkeypatch.setenv("ZOO_DISABLE_PLUGINS", "other, resnett")
    with pytest.raises(UnknownNameError, match=r"unknown plugin 'resnett'. Nearest: resnet.*ZOO_DISABLE_PLUGINS"):
        Registry().backbone("resnet18")
    monkeypatch.delenv("ZOO_DISABLE_PLUGINS")
    # Environments may share a registry.toml, so there it is a warning.
    (site.parent / "registry.toml").write_text('[plugins]\ndisable = ["othr", "other"]\n')
    with pytest.warns(UserWarning, match="disables the plugin 'othr', which is not installed; did you mean other?"):
        assert record(Registry(), "other").state == "disabled"


def test_precedence_argument_environment_file(site: Path, monkeypatch: pytest.MonkeyPatch):
    kit.distribution(site, "one", kit.weights_plugin("net.one"))
    kit.distribution(site, "two", kit.weights_plugin("net.two"))
    config = site.parent / "config"
    config.mkdir()
    (config / "registry.toml").write_text('[plugins]\ndisable = ["one"]\n')
    assert (states(Registry())["one"], states(Registry())["two"]) == ("disabled", "ok")
    assert str(config) in record(Registry(), "one").reason
    monkeypatch.setenv("ZOO_PLUGINS", "one")
    assert {name for name, state in states(Registry()).items() if state == "ok"} == {"one"}
    assert {name for name, state in states(Registry(plugins=["two"])).items() if state == "ok"} == {"two"}
    monkeypatch.setenv("ZOO_PLUGINS", "oen")
    with pytest.raises(UnknownNameError, match="unknown plugin 'oen'.*one"):
        Registry().records()


def test_two_plugins_with_one_name_are_an_error_that_names_both(site: Path):
    kit.distribution(site, "mine", kit.backbone_plugin("net") + kit.weights_plugin("net.a"))
    kit.distribution(
        site, "other", kit.backbone_plugin("net").replace("'Test'", "'Other'") + kit.weights_plugin("net.a")
    )
    registry = Registry()
    with pytest.raises(PluginError) as error:
        registry.backbone("net")
    for part in ("mine/mine", "other/other", "mine/net", "other/net", "[prefer]"):
        assert part in str(error.value)
    with pytest.raises(PluginError, match=r"two plugins give the weights 'net.a'"):
        registry.weights("net.a")
    assert (registry.backbone("mine/net").family, registry.backbone("other/net").family) == ("Test", "Other")
    assert {"mine/net", "other/net"} <= set(registry.backbones()) and "net" not in registry.backbones()


def test_a_name_of_zoos_own_means_it_whatever_is_installed(site: Path):
    """Backbone, task, weights and composition: each by its bare name as before, and the other by its qualified one."""
    default = Registry().weights("resnet18.a1_in1k")
    task = """
import dataclasses
from zoo.models.adapter import Adapter
@dataclasses.dataclass(frozen=True)
class Mine(Adapter):
    targets_from = ("class",)
@zoo.hookimpl
def zoo_adapters():
    return [zoo.AdapterSpec("classifier", Mine), zoo.AdapterSpec("zz", Mine)]
@zoo.hookimpl
def zoo_models():
    return [zoo.ModelSpec("resnet34", "resnet18", "zz"), zoo.ModelSpec("unet_resnet34", "resnet18", "zz")]
"""
    own = kit.weights_plugin("resnet18.a1_in1k", "resnet18.mine", "resnet34.mine")
    kit.distribution(site, "mine", kit.backbone_plugin("resnet18") + own + task)
    registry = Registry()
    assert registry.backbone("resnet18").family == "ResNet"
    assert registry.backbone("mine/resnet18").family == "Test"
    assert registry.backbone("flax-zoo/resnet18").family == "ResNet"
    assert registry.backbone("flax_zoo/resnet18").family == "ResNet"
    assert registry.weights("resnet18.a1_in1k") == default
    assert registry.weights("mine/resnet18.a1_in1k").source == "hf://org/resnet18.a1_in1k"
    assert registry.adapter("classifier").adapter.__module__ == "zoo.adapters.classifier"
    assert registry.adapter("mine/classifier").adapter.__name__ == "Mine"
    assert registry.model("unet_resnet34").adapter == "segmenter"
    assert registry.means_model("unet_resnet34") and not registry.means_model("resnet34")
    assert registry.means_model("mine/resnet34") and registry.parts_of("mine/resnet34") == ("mine/resnet18", "zz")
    # Weights are for the backbone of their own distribution, where that gives one of the name.
    assert registry.backbone_of("resnet18.mine") == "mine/resnet18"
    assert registry.backbone_of("resnet34.mine") == "resnet34"
    assert registry.backbone_of("resnet18.a1_in1k") == "resnet18"
    assert registry.backbones()["resnet18"].family == "ResNet" and "mine/resnet18" in registry.backbones()
    rows = [row for row in registry.rows("backbones") if row.name == "resnet18"]
    assert dict(zip([row.distribution for row in rows], registry.names_of(rows), strict=True)) == {
        "flax-zoo": "resnet18",
        "mine": "mine/resnet18",
    }
    found = record(registry, "mine")
    assert found.state == "shadowed" and "backbone resnet18 is taken from flax-zoo/resnet" in found.reason
    with pytest.raises(UnknownNameError):
        registry.backbone("other/resnet18")


def test_rows_of_two_distributions(site: Path):
    kit.distribution(site, "mine", kit.backbone_plugin("resnet18") + kit.weights_plugin("resnet18.a1_in1k"))
    registry = Registry()
    assert [row.qualified for row in registry.rows("backbones") if row.name == "resnet18"] == [
        "flax-zoo/resnet18",
        "mine/resnet18",
    ]
    by_name = {spec.name: spec.source for spec in registry.weights_for("mine/resnet18")}
    assert by_name["resnet18.a1_in1k"] == "hf://org/resnet18.a1_in1k"


def test_a_preferred_distribution_shadows_the_other(site: Path):
    kit.distribution(site, "mine", kit.backbone_plugin("resnet18", "own") + kit.weights_plugin("resnet18.a1_in1k"))
    (site.parent / "registry.toml").write_text('[prefer]\nresnet18 = "mine"\n')
    registry = Registry()
    with pytest.warns(UserWarning, match="changes what resnet18 is: preferred from mine"):
        assert registry.backbone("resnet18").family == "Test"
    assert registry.weights("resnet18.a1_in1k").source == "hf://org/resnet18.a1_in1k"
    assert registry.backbones()["resnet18"].family == "Test"
    assert registry.backbone("flax-zoo/resnet18").family == "ResNet"
    found = record(registry, "resnet")
    assert found.state == "shadowed"
    assert "backbone resnet18 is taken from mine/mine" in found.reason
    assert registry.backbone("resnet34").family == "ResNet"


def test_one_distribution_that_gives_a_name_twice_is_told_apart_by_plugin(site: Path):
    kit.distribution(site, "mine", kit.backbone_plugin("net"))
    (site / "second_plugin.py").write_text(kit.backbone_plugin("net"))
    with (site / "mine_plugin-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("second = second_plugin\n")
    with pytest.raises(PluginError, match=r"mine/mine \(mine_plugin\) and mine/second \(second_plugin\). Disable one"):
        Registry().backbone("net")
    assert Registry(disable=["second"]).backbone("net").name == "net"


def test_an_unknown_name_says_the_nearest(site: Path):
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'resnet19'\. Nearest: .*resnet18"):
        Registry().backbone("resnet19")
    with pytest.raises(UnknownNameError, match="unknown task 'clasifier'. Nearest: classifier"):
        Registry().adapter("clasifier")


def test_a_single_look_up_loads_one_plugin():
    program = (
        "import sys; from zoo.registry import Registry; Registry().backbone('squeezenet1_1');"
        "print(sorted(m for m in sys.modules if m.startswith(('zoo.plugins.', 'zoo.adapters.'))))"
    )
    assert kit.run("-c", program).stdout.strip() == "['zoo.plugins.squeezenet']"


CATALOGUE = '[plugin."listed_plugin".weights]\n"net.listed" = { source = "hf://org/net.listed" }\n'


def test_a_third_party_catalogue_is_read_without_importing_the_plugin(site: Path):
    module = kit.distribution(site, "listed", kit.weights_plugin("net.listed"), catalogue=CATALOGUE)
    registry = Registry()
    rows = [row for row in registry.rows("weights") if row.distribution == "listed"]
    assert [row.name for row in rows] == ["net.listed"]
    assert module not in sys.modules
    assert registry.weights("net.listed").source == "hf://org/net.listed"
    assert module in sys.modules


def test_a_catalogue_that_promises_too_much_is_said_to_be_out_of_date(site: Path):
    kit.distribution(site, "listed", kit.weights_plugin("net.other"), catalogue=CATALOGUE)
    with pytest.raises(PluginError, match="catalogue of plugin listed/listed, which does not give it"):
        Registry().weights("net.listed")
    kit.distribution(site, "broken", "raise OSError('gone')", catalogue=CATALOGUE.replace("listed", "broken"))
    with pytest.raises(PluginError, match="comes from plugin broken/broken, which failed: OSError: gone"):
        Registry().weights("net.broken")


def test_a_bad_third_party_catalogue_sets_the_plugin_aside(site: Path):
    kit.distribution(site, "listed", kit.weights_plugin("net.listed"), catalogue="[plugin\n")
    registry = Registry()
    assert "is not valid TOML" in record(registry, "listed").reason
    assert registry.rows("backbones")


def test_names_that_a_catalogue_forgot_are_found_by_loading_everything(site: Path):
    kit.distribution(site, "listed", kit.weights_plugin("net.listed", "net.forgotten"), catalogue=CATALOGUE)
    assert Registry().weights("net.forgotten").name == "net.forgotten"


FETCHER = """import zoo
@zoo.hookimpl
def zoo_fetch(source, file, revision, offline):
    {body}
"""


def test_fetch_asks_each_plugin_on_its_own(site: Path):
    kit.distribution(site, "aa", FETCHER.format(body="raise ValueError('not mine')"))
    kit.distribution(site, "bb", FETCHER.format(body="return f'/data/{file}' if source.startswith('s3:') else None"))
    registry = Registry()
    assert registry.fetch("s3://bucket/key", "model.safetensors", "", False) == Path("/data/model.safetensors")
    with pytest.raises(FetchError, match="plugin aa/aa failed to fetch gs://x: ValueError: not mine"):
        registry.fetch("gs://x", "model.safetensors", "", False)
    assert Registry(disable=["aa"]).fetch("gs://x", "model.safetensors", "", False) is None


PRIVATE = """
[weights."resnet18.mine"]
source = "weights/mine.safetensors"
num_classes = 3
size = 96
[weights."resnet18.a1_in1k"]
source = "hf://mirror/resnet18"
[pins."resnet18.a1_in1k"]
revision = "0123456789012345678901234567890123456789"
"""


def test_private_weights_and_pins(site: Path):
    (site.parent / "registry.toml").write_text(PRIVATE)
    registry = Registry()
    mine = registry.weights("resnet18.mine")  # a private name is no redirection
    assert mine.source == str(site.parent / "weights/mine.safetensors")
    assert (mine.num_classes, mine.preprocess.size) == (3, (96, 96))
    assert mine.preprocess.interpolation == registry.backbone("resnet18").preprocess.interpolation
    with pytest.warns(UserWarning, match="registry.toml, in the working directory, changes what resnet18.a1_in1k is"):
        published = registry.weights("resnet18.a1_in1k")
    assert published.source == "hf://mirror/resnet18"
    assert published.preprocess.crop_pct == 0.95
    assert published.revision == "0123456789012345678901234567890123456789"
    assert "resnet18.mine" in [spec.name for spec in registry.weights_for("resnet18")]
    assert [row.data["num_classes"] for row in registry.rows("weights") if row.name == "resnet18.mine"] == [3]


def test_every_catalogued_row_equals_its_spec(site: Path):
    from zoo.registry import catalogue

    registry = Registry()
    rows = registry.rows("weights")
    assert len({row.name for row in rows}) == len(rows) > 50
    for row in rows:
        spec = registry.weights(row.name)
        base = WeightSpec(row.name, preprocess=registry.backbone(spec.backbone).preprocess)
        assert catalogue.weight_spec(row, base if "preprocess" in row.data else None) == spec
        assert dict(catalogue.weight_spec(row).options) == dict(spec.options)


def test_weights_that_say_nothing_of_preprocessing_have_their_backbones(site: Path):
    """Whoever ships them: another distribution, for a backbone of zoo's or its own, or the user."""
    backbone = kit.backbone_plugin("net").replace(
        "ClassifierLayout('fc'))",
        "ClassifierLayout('fc'), preprocess=zoo.registry.spec.Preprocess(size=(64, 48), crop_pct=0.5))",
    )
    said = (
        "@zoo.hookimpl\ndef zoo_weights():\n    return [zoo.WeightSpec(n) for n in ('net.a', 'vit_tiny_patch16_224.b')]"
    )
    said += " + [zoo.WeightSpec('net.c', preprocess=zoo.registry.spec.Preprocess(crop_pct=0.9))]\n"
    kit.distribution(site, "mine", backbone + said)
    (site.parent / "registry.toml").write_text('[weights."net.d"]\nsource = "d"\n[weights."net.e"]\nsize = 32\n')
    registry = Registry()
    own = Preprocess(size=(64, 48), crop_pct=0.5)
    assert registry.weights("net.a").preprocess == registry.weights("mine/net.a").preprocess == own
    assert registry.weights("net.d").preprocess == own
    assert registry.weights("net.e").preprocess == Preprocess(size=(32, 32), crop_pct=0.5)
    assert registry.weights("net.c").preprocess == Preprocess(crop_pct=0.9)
    vit = registry.backbone("vit_tiny_patch16_224").preprocess
    assert registry.weights("vit_tiny_patch16_224.b").preprocess == vit != Preprocess()
    assert {spec.name: spec.preprocess for spec in registry.weights_for("net")}["net.a"] == own
    from zoo.cli.entries import _entries

    lookup._default = registry
    try:
        listed = {entry["name"]: entry["preprocess"] for entry in _entries("weights")}
    finally:
        lookup.reset()
    assert listed["net.a"]["size"] == listed["net.d"]["size"] == [64, 48] and listed["net.d"]["crop_pct"] == 0.5
    assert listed["net.e"]["size"] == [32, 32]
    assert tuple(listed["vit_tiny_patch16_224.b"]["mean"]) == vit.mean


def test_what_a_saved_model_was_made_with_is_of_that_distribution_or_an_error(site: Path):
    kit.distribution(site, "mine", kit.backbone_plugin("net", "resnet18"), version="2.0")
    registry = Registry()
    assert registry.provider("backbones", "net") == ("mine", "2.0")
    assert registry.recorded("backbones", "resnet18", "mine", "1.0").family == "Test"
    assert registry.recorded("backbones", "resnet18", "flax-zoo", "0.0").family == "ResNet"
    with pytest.raises(PluginError) as error:
        registry.recorded("backbones", "net", "theirs", "1.0")
    for part in ("'net' of the distribution theirs 1.0", "pip install theirs", "mine/net has the same name"):
        assert part in str(error.value)
    with pytest.raises(PluginError, match=r"installed mine 2.0 does not give it: `pip install 'mine==1.0'`"):
        registry.recorded("backbones", "old", "mine", "1.0")
    with pytest.raises(PluginError, match="mine/mine is disabled: disabled by argument"):
        Registry(disable=["mine"]).recorded("backbones", "net", "mine", "1.0")


def test_the_default_registry_is_made_once(site: Path, monkeypatch: pytest.MonkeyPatch):
    lookup.reset()
    first = lookup.registry()
    assert lookup.registry() is first
    lookup.reset()
    assert lookup.registry() is not first
    lookup.reset()


def test_a_bad_overlay_is_an_error_and_not_a_traceback(site: Path):
    (site.parent / "registry.toml").write_text("[plugins]\ndisabled = []\n")
    with pytest.raises(ConfigError, match=r"registry.toml: unknown key plugins.disabled; did you mean disable\?"):
        Registry().records()

"""The catalogue file: derived from the plugins, checked, and read with errors that name the file and the key."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tomllib
from pathlib import Path

import plugin_kit as kit
import pytest

from zoo.errors import ConfigError
from zoo.models.backbone import count_params
from zoo.registry import catalogue, derive, loader
from zoo.registry.catalogue import FIELDS, KINDS, Row
from zoo.registry.loader import Contribution
from zoo.registry.spec import ModelSpec, Preprocess, WeightSpec


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(working directory, configuration folder), both empty."""
    here, config = tmp_path / "here", tmp_path / "config"
    here.mkdir()
    config.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("ZOO_CONFIG", str(config))
    return here, config


def given(**specs) -> Contribution:
    return Contribution({kind: {spec.name: spec for spec in specs.get(kind, ())} for kind in KINDS})


def test_the_repository_s_catalogue_is_what_the_plugins_say():
    """All but the parameter counts, which `make check` compares with those of the references."""
    rows = catalogue.read_catalogue(kit.ROOT / "registry.toml", "flax-zoo")
    own = [candidate for candidate in loader.discover() if candidate.first_party]
    assert set(rows) == {candidate.module for candidate in own}
    for candidate in own:
        specs = loader.load(candidate).specs
        listed = {(row.kind, row.name): row for row in rows[candidate.module]}
        assert set(listed) == {(kind, name) for kind in KINDS for name in specs[kind]}
        for kind, name in listed:
            said = {k: v for k, v in listed[kind, name].data.items() if k != "params"}
            usual = {**derive._DEFAULTS}
            expected = derive.fields(kind, specs[kind][name])
            assert {k: v for k, v in said.items() if k in expected or v != usual.get(k)} == expected


def test_parameters_are_counted_without_the_classifier():
    rows = catalogue.read_catalogue(kit.ROOT / "registry.toml", "flax-zoo")
    found = {row.name: row.data["params"] for some in rows.values() for row in some if row.kind == "backbones"}
    # Published sizes (torchvision's model table) less the 1000-class head: 512 or 1280 or 2048 features and a bias.
    assert found["resnet18"] == 11_689_512 - 513 * 1000
    assert found["resnet50"] == 25_557_032 - 2049 * 1000
    assert found["mobilenetv2_100"] == 3_504_872 - 1281 * 1000
    assert found["squeezenet1_1"] == 1_235_496 - 513 * 1000


def test_a_count_of_a_real_backbone():
    squeezenet = next(c for c in loader.discover() if c.name == "squeezenet")
    spec = loader.load(squeezenet).specs["backbones"]["squeezenet1_1"]
    assert count_params(spec) == 1_235_496 - 513 * 1000


WEIGHTS = [
    WeightSpec(
        f"net.{tag}",
        source=f"hf://org/net.{tag}",
        license="mit",
        commercial_use="yes",
        preprocess=Preprocess(size=size, interpolation="bicubic", mean=mean),
        options=options,
        note=note,
    )
    for tag, size, mean, options, note in [
        ("a", (224, 224), (0.5, 0.5, 0.5), {}, ""),
        ("b", (160, 96), (0.5, 0.5, 0.5), {"padding": "same"}, 'says "quoted", ümlaut\nand a line'),
        ("c", (256, 256), (0.485, 0.456, 0.406), {"depth": 3, "wide": True}, ""),
    ]
] + [WeightSpec("net.file", sha256="0" * 64)]


def test_rows_come_back_as_the_specs_they_were_derived_from(tmp_path: Path):
    text = derive.catalogue([("m", given(weights=WEIGHTS))], "test", count_params)
    assert derive.catalogue([("m", given(weights=WEIGHTS[::-1]))], "test", count_params) == text
    (tmp_path / "registry.toml").write_text(text)
    rows = catalogue.read_catalogue(tmp_path / "registry.toml", "dist")["m"]
    assert [row.name for row in rows] == ["net.a", "net.b", "net.c", "net.file"]
    for row, spec in zip(rows, WEIGHTS, strict=True):
        assert catalogue.weight_spec(row) == spec
        assert dict(catalogue.weight_spec(row).options) == dict(spec.options)
    shared = tomllib.loads(text)["plugin"]["m"]["weights"]["*"]
    assert shared == {
        "source": "hf://org/{name}",
        "license": "mit",
        "commercial_use": "yes",
        "interpolation": "bicubic",
    }


def test_a_plugin_that_gives_nothing_is_still_catalogued(tmp_path: Path):
    (tmp_path / "registry.toml").write_text(derive.catalogue([("m", given())], "test", count_params))
    assert catalogue.read_catalogue(tmp_path / "registry.toml", "dist") == {"m": []}


def test_models_are_catalogued(tmp_path: Path):
    model = ModelSpec("detector", "resnet18", "boxes", {"levels": [3, 4], "free": None}, "Finds things.")
    (tmp_path / "registry.toml").write_text(derive.catalogue([("m", given(models=[model]))], "test", count_params))
    (row,) = catalogue.read_catalogue(tmp_path / "registry.toml", "dist")["m"]
    assert row == Row(
        "models",
        "detector",
        "m",
        "dist",
        {
            "backbone": "resnet18",
            "adapter": "boxes",
            "config": {"levels": [3, 4], "free": "None"},
            "summary": "Finds things.",
        },
    )


def test_every_field_of_a_spec_can_be_in_its_row():
    """A field that is added to a spec must be added to the catalogue, or be named here with its reason."""
    in_code = {"name", "build", "classifier", "preprocess", "adapter"}
    for kind, spec in (("weights", WeightSpec), ("models", ModelSpec)):
        names = {field.name for field in dataclasses.fields(spec)} - (
            in_code if kind == "weights" else {"name", "preprocess"}
        )
        assert names <= set(FIELDS[kind]), kind
    assert {field.name for field in dataclasses.fields(Preprocess)} <= set(FIELDS["weights"])


BAD_OVERLAYS = {
    "[weights\n": "is not valid TOML",
    "[weight]\n": "unknown key weight; did you mean weights?",
    "[plugin.x]\n[prefer]\n": "unknown key plugin; did you mean plugins?",
    "[weights.resnet18.mine]\nsource = 'x'\n": "'resnet18' is not a name of weights (arch.tag). Write it in quotes",
    '[weights."resnet18.mine"]\nsorce = "x"\n': 'unknown key weights."resnet18.mine".sorce; did you mean source?',
    '[weights."resnet18.mine"]\nsource = 3\n': 'weights."resnet18.mine".source is 3; it must be a string',
    '[weights."resnet18.mine"]\nnum_classes = true\n': "is True; it must be an integer",
    '[weights."resnet18.mine"]\ninterpolation = "cubic"\n': "interpolation is 'cubic'; accepted: bilinear, bicubic",
    '[weights."resnet18.mine"]\nmean = [0.5]\n': "mean has 1 and std has 3 values",
    '[weights."resnet18.mine"]\nsize = [1, 2, 3]\n': "size",
    '[weights."resnet18.mine"]\nsize = ["a", 2]\n': "size",
    '[weights."resnet18.mine"]\nframes = [4, 5]\n': "each frame must be [height, width]",
    '[weights."a.b"]\nmean = [0.5, nan, 0.5]\n': "weights.a.b.mean.1 is nan; it must be a finite number",
    '[weights."a.b"]\noptions = {rate = -inf}\n': "weights.a.b.options.rate is -inf",
    '[weights."a.b"]\nsource = "https://example.com/x.safetensors"\n': "zoo does not load from web addresses",
    '[weights."a.b"]\nsource = "file:///etc/passwd"\n': "without file://",
    '[weights."a.b"]\nsource = "gs://user:secret@bucket/x"\n': "'gs://***@bucket/x' contains a user name or password",
    '[weights."a.b"]\nsource = "hf://timm/r\\u0435snet18"\n': "does not have the form hf://org/repo",  # a Cyrillic e
    '[weights."a.b"]\nsource = "\\uff48\\uff46://timm/resnet18"\n': "has no scheme that zoo knows",  # wide letters
    '[weights."a.b"]\nsource = "hf://timm/../x"\n': "does not have the form",
    '[weights."a.b"]\nsource = "models/../../x"\n': "must not contain '..'",
    '[weights."a.b"]\nsource = "a\\\\..\\\\b"\n': "must not contain '..'",
    '[weights."a.b"]\nsource = "/etc/x.safetensors"\n': "is outside the folder of the file",
    '[weights."a.b"]\nsource = "~/x.safetensors"\n': "is outside the folder of the file",
    '[weights."a.b"]\nsource = "C:/x.safetensors"\n': "is outside the folder of the file",
    '[weights."a.b"]\nsource = "x\\u202egpj.safetensors"\n': "has control characters",
    '[weights."a.b"]\nfile = "../x"\n': "'../x' is not a file name inside a source",
    '[pins."a.b"]\nrevision = "main/../x"\n': "'main/../x' is not a revision",
    "x = " + "[" * 5000 + "]" * 5000 + "\n": "is not valid TOML",
    '[weights."a.b"]\nfill = 300\n': "fill is 300; the first must have no values or three, and all must be from 0 to",
    '[weights."a.b"]\nbackground = [1, 2]\n': "background is (1, 2)",
    "plugins = 3\n": "plugins must be a table",
    "[plugins]\ndisable = 'x'\n": "plugins.disable is 'x'; it must be a list",
    "[prefer]\nresnet18 = 1\n": "prefer.resnet18 is 1; it must be a string",
    "[pins.\"a.b\"]\nsha256 = 'abc'\n": 'pins."a.b".sha256 must be 64 lower-case hexadecimal digits',
}


@pytest.mark.parametrize("text", BAD_OVERLAYS)
def test_a_bad_overlay_names_the_file_and_the_key(folders: tuple[Path, Path], text: str):
    here, _ = folders
    (here / "registry.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        catalogue.read_overlay()
    assert str(here / "registry.toml") in str(error.value)
    assert BAD_OVERLAYS[text] in str(error.value)


def test_the_users_own_overlay_may_name_files_anywhere(folders: tuple[Path, Path], tmp_path: Path):
    here, config = folders
    (config / "registry.toml").write_text(
        f'[weights."a.b"]\nsource = "{tmp_path}/b"\n[weights."a.c"]\nsource = "~/c"\n'
    )
    weights = catalogue.read_overlay().weights
    assert weights["a.b"].data["source"] == f"{tmp_path}/b" and weights["a.c"].data["source"] == str(Path.home() / "c")


def test_an_overlay_that_is_not_text(folders: tuple[Path, Path]):
    (folders[0] / "registry.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        catalogue.read_overlay()


def test_the_working_directory_wins_over_the_configuration_folder(folders: tuple[Path, Path]):
    here, config = folders
    (here / "registry.toml").write_text('[prefer]\na = "one"\n[plugins]\ndisable = ["x"]\n')
    (config / "registry.toml").write_text('[prefer]\na = "two"\nb = "two"\n[plugins]\ndisable = ["y"]\n')
    overlay = catalogue.read_overlay()
    assert overlay.prefer == {"a": "one", "b": "two"}
    assert set(overlay.disable) == {"x", "y"}
    assert overlay.files == (here / "registry.toml", config / "registry.toml")


def test_a_catalogue_in_the_working_directory_is_not_an_overlay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ZOO_CONFIG", str(tmp_path))
    monkeypatch.chdir(kit.ROOT)
    assert catalogue.read_overlay().files == ()


def test_the_tool_says_what_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """For squeezenet alone, which takes seconds; its catalogue is then damaged in one number."""
    place = importlib.util.spec_from_file_location("catalogue_tool", kit.ROOT / "tools" / "catalogue.py")
    assert place is not None and place.loader is not None
    tool = importlib.util.module_from_spec(place)
    place.loader.exec_module(tool)
    squeezenet = [candidate for candidate in loader.discover() if candidate.name == "squeezenet"]
    monkeypatch.setattr(loader, "discover", lambda: squeezenet)
    path = tmp_path / "registry.toml"
    monkeypatch.setattr(tool, "PATH", path)
    monkeypatch.setattr(tool, "PAGE", page := tmp_path / "backbones.md")

    def run(*args: str) -> int:
        monkeypatch.setattr(sys, "argv", ["catalogue.py", *args])
        return tool.main()

    assert run("--check") == 1
    assert not path.exists()
    assert (run(), run("--check")) == (0, 0)
    assert "2 backbones of 1 families" in page.read_text() and "`squeezenet1_1`" in page.read_text()
    capsys.readouterr()
    path.write_text(path.read_text().replace("params = 7", "params = 8", 1))
    assert run("--check") == 1
    said = capsys.readouterr()
    assert "params = 8" in said.out
    assert "registry.toml is out of date: run `python tools/catalogue.py`" in said.err
    path.write_text(tool.derived()[path])
    page.write_text(page.read_text().replace("torchvision", "keras"))
    assert run("--check") == 1
    assert "backbones.md is out of date" in capsys.readouterr().err

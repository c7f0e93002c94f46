from __future__ import annotations

from dataclasses import fields

import pytest

from metaprune_cli.config import (
    DataSettings,
    EvalSettings,
    MetanetSettings,
    MetaTrainSettings,
    OptimSettings,
    PruneSettings,
    SparsifySettings,
    ZooMember,
    ZooSettings,
)
from metaprune_cli.config_loader import load_section, sections
from metaprune_cli.errors import InputError

CLASSES = [DataSettings, OptimSettings, ZooSettings, MetanetSettings, MetaTrainSettings, PruneSettings, EvalSettings]
CLASSES += [SparsifySettings]


@pytest.fixture
def params(tmp_path):
    def write(text):
        path = tmp_path / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_hold_without_a_file_and_fit_their_own_ranges(cls):
    assert load_section(None, "section", cls) == cls()
    spelt_out = {field.name: getattr(cls(), field.name) for field in fields(cls)}
    nested = {
        ZooSettings: {"members": [{"count": 4}], "train": {}},
        DataSettings: {"preprocessing": {}, "restoration": {}},
    }.get(cls, {})
    assert load_section(None, "section", cls, spelt_out | nested) == cls()


@pytest.mark.parametrize("text", ["", "data: {}", "data:", "prune:\n  speedup: 3"])
def test_a_section_that_is_empty_or_not_there_means_defaults(text, params):
    assert load_section(params(text), "data", DataSettings) == DataSettings()


def test_values_are_read_and_flags_override_them(params):
    path = params("prune:\n  speedup: [2, 4.5]\n  criterion: taylor\n  seed: 3\n")
    expected = PruneSettings(speedup=(2.0, 4.5), criterion="taylor", seed=7)
    assert load_section(path, "prune", PruneSettings, {"seed": 7}) == expected


def test_a_single_value_is_a_tuple_of_one(params):
    settings = load_section(params("prune:\n  speedup: 3"), "prune", PruneSettings)
    assert settings.speedup == (3.0,)
    assert isinstance(settings.speedup[0], float)


def test_a_number_that_yaml_takes_for_text_is_a_number(params):
    assert load_section(params("zoo:\n  train:\n    lr: 1e-3"), "zoo", ZooSettings).train.lr == 1e-3


def test_nested_sections(params):
    text = """
    zoo:
      members:
        - {arch: "cifar:resnet8", arch_args: {width: 0.5, note: "1"}, count: 2}
        - {arch: "cifar:vgg11_bn"}
      train: {epochs: 3, milestones: [1, 2]}
    """
    members = (ZooMember(arch_args={"width": 0.5, "note": "1"}, count=2), ZooMember(arch="cifar:vgg11_bn"))
    settings = load_section(params(text), "zoo", ZooSettings, {"train": {"lr": 0.5}})
    assert settings == ZooSettings(members=members, train=OptimSettings(epochs=3, milestones=(1, 2), lr=0.5))


def test_null_where_it_is_allowed(params):
    settings = load_section(params("data:\n  train_limit: null\n  image_size: 32"), "data", DataSettings)
    assert (settings.train_limit, settings.image_size) == (None, 32)


@pytest.mark.parametrize(
    ("section", "cls", "line", "message"),
    [
        ("prune", PruneSettings, "speedups: 2", "speedups: unknown, did you mean 'speedup'?"),
        ("prune", PruneSettings, "speedup: [2, fast]", "speedup[1]: expected a number, got 'fast'"),
        ("prune", PruneSettings, "speedup: 0.5", "speedup[0]: expected a number above 1, got 0.5"),
        ("prune", PruneSettings, "criterion: group-l3", "got 'group-l3', did you mean 'group-l"),
        ("prune", PruneSettings, "max_ratio: .nan", "max_ratio: expected a number, got nan"),
        ("prune", PruneSettings, "seed: 1.5", "seed: expected a whole number, got 1.5"),
        ("prune", PruneSettings, "seed: true", "seed: expected a whole number, got True"),
        ("prune", PruneSettings, "seed: null", "seed: expected a whole number, got None"),
        ("data", DataSettings, "dataset: digit", "did you mean 'digits'?"),
        ("data", DataSettings, "val_fraction: 1", "val_fraction: expected a number above 0 and below 1, got 1"),
        ("data", DataSettings, "train_limit: 0", "train_limit: expected a number at least 1 or null, got 0"),
        ("data", DataSettings, "data_root: 3", "data_root: expected text or null, got 3"),
        ("zoo", ZooSettings, "train: 3", "train: expected keys and values, got 3"),
        ("zoo", ZooSettings, "train: {epoch: 3}", "train.epoch: unknown, did you mean 'epochs'?"),
        ("zoo", ZooSettings, "train: {compile: 1}", "train.compile: expected true or false, got 1"),
        ("zoo", ZooSettings, "members: [{count: 1}, {cuont: 1}]", "members[1].cuont: unknown, did you mean 'count'?"),
        ("zoo", ZooSettings, "members: [{arch_args: {width: [1]}}]", "members[0].arch_args: expected"),
    ],
)
def test_what_cannot_be_used_is_named(section, cls, line, message, params):
    path = params(f"{section}:\n  {line}\n")
    with pytest.raises(InputError) as caught:
        load_section(path, section, cls)
    assert message in str(caught.value)
    assert f"section '{section}'" in caught.value.what
    assert str(path) in str(caught.value)


def test_all_problems_come_at_once(params):
    path = params("prune:\n  speedup: 0\n  scopes: global\n  criterion: best\n")
    with pytest.raises(InputError, match="3 settings of section 'prune' cannot be used") as caught:
        load_section(path, "prune", PruneSettings)
    for key in ("speedup[0]:", "scopes:", "criterion:"):
        assert f"  - {key}" in caught.value.what


def test_a_section_that_is_no_mapping_is_refused(params):
    with pytest.raises(InputError, match="the section: expected keys and values, got 3"):
        load_section(params("prune: 3"), "prune", PruneSettings)


def test_an_empty_range_of_speedups_is_refused(params):
    with pytest.raises(InputError, match="range of speed-ups is empty"):
        load_section(params("meta-train:\n  speedup_min: 9"), "meta-train", MetaTrainSettings)


def test_a_misspelt_section_is_refused_and_others_are_left_alone(params):
    with pytest.raises(InputError, match="Unknown section 'prunes', did you mean 'prune'"):
        load_section(params("prunes:\n  speedup: 3"), "prune", PruneSettings)
    assert "my_own" in sections(params("my_own: 1\ndata: {}"))


@pytest.mark.parametrize("text", ["data: [", "\tdata: 1", "- a\n- b", "just words", "1: 2"])
def test_a_file_without_sections_is_refused(text, params):
    with pytest.raises(InputError, match=r"not valid YAML|has no sections"):
        load_section(params(text), "data", DataSettings)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_section(tmp_path / "params.yaml", "data", DataSettings)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("network.py:Net", "network:Net"),
        ("./nets/small.py:Net", "nets.small:Net"),
        ("network:Net", "network:Net"),
        ("cifar:resnet8", "cifar:resnet8"),
    ],
)
def test_code_may_be_named_by_its_file(params, typed, meant):
    file = params(
        f"zoo: {{members: [{{arch: '{typed}'}}]}}\nprune: {{criterion: '{typed}'}}\ndata: {{task: '{typed}'}}"
    )
    assert load_section(file, "zoo", ZooSettings).members[0].arch == meant
    assert load_section(file, "prune", PruneSettings).criterion == meant
    assert load_section(file, "data", DataSettings).task == meant


@pytest.mark.parametrize(
    ("settings", "pruned", "steps", "lr"),
    [
        (OptimSettings(), False, 1000, 0.1),
        (OptimSettings(optimizer="adamw"), False, 1000, 1e-3),
        (OptimSettings(optimizer="adamw"), True, 1000, 1e-3),
        (OptimSettings(epochs=4), True, 13, 0.005),
        (OptimSettings(epochs=20), True, 13, 0.013),
        (OptimSettings(epochs=10), True, 351, 0.02),
        (OptimSettings(lr=0.3), True, 351, 0.3),
    ],
)
def test_the_learning_rate_suits_the_model_and_the_length(settings, pruned, steps, lr):
    assert settings.for_model(pruned=pruned, steps_per_epoch=steps).lr == pytest.approx(lr)

"""Settings survive a round trip through JSON; misspelt names and wrong types are refused by name."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import says
from uniemox.errors import ConfigError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.presets import PRESETS as FINETUNING
from uniemox.io.run_record import read_json_object
from uniemox.pretrain.config import EncoderConfig, PretrainConfig
from uniemox.pretrain.presets import PRESETS as PRETRAINING
from uniemox.training.config import OptimizerConfig
from uniemox.training.settings_record import differences, from_dict, to_dict

ALL = [*PRETRAINING.values(), *FINETUNING.values()]
BELOW_1 = st.floats(0, 1, exclude_max=True)


@st.composite
def configs(draw: st.DrawFn) -> Any:
    """A preset with other values in fields of every type."""
    config = draw(st.sampled_from(ALL))()
    optimizer = OptimizerConfig(
        base_lr=draw(st.floats(1e-12, 1e6)),
        betas=(draw(BELOW_1), draw(BELOW_1)),
        max_grad_norm=draw(st.none() | st.floats(1e-6, 1e6)),
    )
    if isinstance(config, PretrainConfig):
        config = replace(config, force_lr=True)
    config = replace(config, optimizer=optimizer, seed=draw(st.integers(0, 2**40)))
    if isinstance(config, PretrainConfig):
        return replace(config, encoder=EncoderConfig(start=draw(st.none() | st.text(max_size=8))))
    return replace(config, init=draw(st.text(max_size=8)), monitor=draw(st.sampled_from([None, "val", "holdout"])))


@given(configs())
def test_every_config_comes_back_from_json(config: Any) -> None:
    values = json.loads(json.dumps(to_dict(config)))
    assert from_dict(type(config), values, "file") == config
    assert differences(config, config) == []


@given(configs(), st.data())
def test_a_field_that_is_left_out_takes_its_default(config: Any, data: st.DataObject) -> None:
    values = to_dict(config)
    # A high learning rate on initial weights needs force_lr.
    name = data.draw(st.sampled_from(sorted(set(values) - {"force_lr"})))
    del values[name]
    assert to_dict(from_dict(type(config), values, "file"))[name] == to_dict(type(config)())[name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bach_size": 3}, "file: unknown setting 'bach_size'; did you mean 'batch_size'?"),
        ({"model": {"fuson": "gated"}}, "file: unknown setting 'model.fuson'; did you mean 'model.fusion'?"),
        ({"zzzzzz": 1}, "file: unknown setting 'zzzzzz'"),
        ({"batch_size": "8"}, 'file: field batch_size: expected a whole number, got "8"; correct the setting'),
        ({"batch_size": 8.0}, "file: field batch_size: expected a whole number, got 8.0"),
        ({"batch_size": True}, "file: field batch_size: expected a whole number, got true"),
        ({"batch_size": None}, "file: field batch_size: expected a whole number, got null"),
        ({"model": {"norm_pix": 1}}, "file: field model.norm_pix: expected true or false, got 1"),
        ({"model": {"fusion": "sum"}}, "there is no fusion 'sum'; choose one of static"),
        ({"model": {"fusion": ["gated"]}}, "file: field model.fusion: expected a text or null, got a list"),
        ({"model": 3}, "file: field model: expected an object, got 3"),
        ({"view": None}, "file: field view: expected an object, got null"),
        ({"optimizer": {"betas": ["a", "b"]}}, 'file: field optimizer.betas[0]: expected a number, got "a"'),
        ({"optimizer": {"betas": [0.9]}}, "file: field optimizer.betas: expected a list of length 2, got 1"),
        ({"optimizer": {"betas": 0.9}}, "file: field optimizer.betas: expected a list, got 0.9"),
        ({"optimizer": {"base_lr": "high"}}, 'file: field optimizer.base_lr: expected a number, got "high"'),
        ({"optimizer": {"base_lr": float("nan")}}, "optimizer.base_lr must be above 0, got nan"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused_with_their_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=says(message)):
        from_dict(PretrainConfig, values, "file")


def test_integers_are_accepted_for_floats() -> None:
    config = from_dict(PretrainConfig, {"schedule": {"epochs": 50, "warmup_epochs": 0}}, "file")
    assert (config.schedule.epochs, type(config.schedule.epochs)) == (50.0, float)


@dataclass(frozen=True)
class WithPath:
    splits: Path | None = None


def test_paths_become_text_and_come_back() -> None:
    config = WithPath(splits=Path("a/b.json"))
    assert to_dict(config)["splits"] == "a/b.json"
    assert from_dict(WithPath, to_dict(config), "file") == config


def test_differences_name_the_setting_and_both_values() -> None:
    ours = PretrainConfig()
    theirs = replace(ours, seed=3, model=replace(ours.model, fusion="gated"))
    assert differences(ours, theirs) == ["model.fusion: 'attention' now, 'gated' at first", "seed: 0 now, 3 at first"]
    changed = replace(ours, optimizer=replace(ours.optimizer, betas=(0.9, 0.99)))
    assert differences(changed, ours) == ["optimizer.betas: [0.9, 0.99] now, [0.9, 0.95] at first"]
    assert differences(FinetuneConfig(ema_decay=None), FinetuneConfig(ema_decay=0.5)) == [
        "ema_decay: None now, 0.5 at first"
    ]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "[" * 100_000])
def test_config_file_without_an_object_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=says(path)):
        read_json_object(path)

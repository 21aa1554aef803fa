"""A run without initial weights starts from the package's model, where that suits its method and preset."""

from dataclasses import replace

import pytest
import torch

from uniemox.errors import ConfigError
from uniemox.finetune import default_init
from uniemox.finetune.presets import best, demo, paper
from uniemox.training.config import HardwareConfig


def test_without_a_gpu_only_a_new_head_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_init, "_has_gpu", lambda _: False)
    config, chosen = default_init.with_default_init(best(), has_method=False)
    assert (config.init, config.method) == ("embedded", "probe")
    assert "--method full" in chosen


def test_with_a_gpu_everything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_init, "_has_gpu", lambda _: True)
    config, chosen = default_init.with_default_init(best(), has_method=False)
    assert (config.init, config.method) == ("embedded", "full")
    assert "embedded" in chosen


def test_a_chosen_method_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_init, "_has_gpu", lambda _: False)
    config, _ = default_init.with_default_init(best(), has_method=True)
    assert (config.init, config.method) == ("embedded", "full")


def test_the_cpu_of_a_machine_with_a_gpu_counts_as_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config, _ = default_init.with_default_init(replace(best(), hardware=HardwareConfig(device="cpu")), has_method=False)
    assert config.method == "probe"


def test_given_weights_and_the_histogram_stay() -> None:
    assert default_init.needs_default_init(best(), "best")
    assert not default_init.needs_default_init(replace(best(), init="runs/pre"), "best")
    assert not default_init.needs_default_init(replace(best(), method="histogram"), "best")


@pytest.mark.parametrize("method", ["solver", "mean"])
def test_methods_that_need_other_weights_say_so(method: str) -> None:
    with pytest.raises(ConfigError, match="--init is missing: give embedded"):
        default_init.needs_default_init(replace(best(), method=method), "best")


def test_the_presets_of_the_papers_networks_need_initial_weights() -> None:
    for name, preset in (("paper", paper), ("demo", demo)):
        with pytest.raises(ConfigError, match="--init is missing"):
            default_init.needs_default_init(preset(), name)

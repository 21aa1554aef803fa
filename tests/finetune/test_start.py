"""A run without initial weights starts from the package's model, where that suits its method and preset."""

from dataclasses import replace

import pytest

from uniemox.errors import ConfigError
from uniemox.finetune import start
from uniemox.finetune.presets import best, demo, paper


def test_without_a_gpu_only_a_new_head_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_has_gpu", lambda: False)
    config, chosen = start.with_start(best(), has_method=False, preset="best")
    assert (config.init, config.method) == ("embedded", "probe")
    assert "--method full" in chosen


def test_with_a_gpu_everything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_has_gpu", lambda: True)
    config, chosen = start.with_start(best(), has_method=False, preset="best")
    assert (config.init, config.method) == ("embedded", "full")
    assert "embedded" in chosen


def test_a_chosen_method_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_has_gpu", lambda: False)
    config, _ = start.with_start(best(), has_method=True, preset="best")
    assert (config.init, config.method) == ("embedded", "full")


def test_given_weights_and_the_histogram_stay() -> None:
    given = replace(best(), init="runs/pre")
    assert start.with_start(given, has_method=False, preset="best") == (given, "")
    histogram = replace(best(), method="histogram")
    assert start.with_start(histogram, has_method=True, preset="best") == (histogram, "")


@pytest.mark.parametrize("method", ["solver", "mean"])
def test_methods_that_need_other_weights_say_so(method: str) -> None:
    with pytest.raises(ConfigError, match="--init is missing: give embedded"):
        start.with_start(replace(best(), method=method), has_method=True, preset="best")


def test_the_presets_of_the_papers_networks_need_initial_weights() -> None:
    for name, preset in (("paper", paper), ("demo", demo)):
        with pytest.raises(ConfigError, match="--init is missing"):
            start.with_start(preset(), has_method=False, preset=name)

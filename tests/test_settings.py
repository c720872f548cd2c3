"""The one list of options."""

import inspect
from dataclasses import fields

import pytest

from restorer.errors import RestorerError
from restorer.pipeline.files import FileSettings
from restorer.pipeline.settings import UpscaleSettings


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({}, (400, 600)),
        ({"scale": 2.5}, (250, 375)),
        ({"scale": 0.5}, (50, 75)),
        ({"width": 451}, (301, 451)),
        ({"height": 333}, (333, 500)),
        ({"width": 200, "height": 77}, (77, 200)),
        ({"long_side": 1200}, (800, 1200)),
        ({"megapixels": 0.06}, (200, 300)),
    ],
)
def test_output_size_is_exact_to_the_pixel(asked, size):
    assert UpscaleSettings(**asked).output_size((100, 150), 4) == size


@pytest.mark.parametrize(
    "bad",
    [
        {"scale": 0}, {"scale": -2}, {"scale": float("nan")}, {"scale": float("inf")}, {"width": 0}, {"height": -1},
        {"long_side": 0}, {"megapixels": 0}, {"strength": 1.1}, {"strength": -0.1}, {"denoise": 2}, {"tile": 8},
        {"tile": -1}, {"precision": "fp8"}, {"engine": "warp"}, {"scale": 2, "width": 100},
        {"long_side": 9, "megapixels": 1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(bad):
    with pytest.raises(RestorerError, match=next(iter(bad))):
        UpscaleSettings(**bad)


def test_an_absurd_output_is_refused_with_its_size_and_the_limit():
    with pytest.raises(RestorerError, match=r"100000x100000 \(10000 megapixels\), the limit is 1000"):
        UpscaleSettings(scale=1000).output_size((100, 100), 4)


def test_limits_do_not_change_the_digest_and_anything_else_does():
    same = UpscaleSettings(max_megapixels_out=5).digest()
    assert same == UpscaleSettings().digest()
    assert UpscaleSettings(scale=2).digest() == UpscaleSettings(scale=2.0).digest()
    changed = [{"model": "x"}, {"scale": 2}, {"tile": 64}, {"strength": 0.5}, {"wrap": True}, {"facts": {"a": "b"}}]
    assert len({UpscaleSettings(**change).digest() for change in changed} | {same}) == len(changed) + 1


def test_every_setting_is_an_option_of_the_command():
    from restorer.apps.cli.upscale import upscale

    options = set(inspect.signature(upscale).parameters)
    settings = {f.name for kind in (UpscaleSettings, FileSettings) for f in fields(kind)}
    assert {"fact" if name == "facts" else name for name in settings} <= options

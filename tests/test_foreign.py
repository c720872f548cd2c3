"""Networks that only spandrel knows: they take the same way as ours, and it is said."""

import numpy as np
import pytest
import torch
from some_pictures import random_array

from restorer import Picture, Restorer, UpscaleSettings
from restorer.api import open_model
from restorer.engines.graph import GraphForm
from restorer.engines.onnx_file import open_onnx_file
from restorer.errors import NumericalError, UnknownWeightsError, UnsupportedError
from restorer.export import export_model
from restorer.networks import foreign

spandrel = pytest.importorskip("spandrel")
pytestmark = pytest.mark.filterwarnings("ignore")


def swinir():
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=16, embed_dim=24, depths=[2, 2], num_heads=[2, 2], window_size=4, upscale=2, mlp_ratio=2,
        upsampler="pixelshuffle",
    )  # fmt: skip


def dat():
    from spandrel.architectures.DAT import DAT

    return DAT(
        img_size=16, embed_dim=48, depth=[2], num_heads=[2], split_size=[2, 4], upscale=2, upsampler="pixelshuffle"
    )


def span():
    from spandrel.architectures.SPAN import SPAN

    return SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2)


NETWORKS = {"SwinIR": swinir, "DAT": dat, "SPAN": span}


@pytest.fixture(params=NETWORKS)
def saved(request, tmp_path):
    """(name, file): random weights as others save them."""
    torch.manual_seed(0)
    path = tmp_path / f"{request.param}.pth"
    torch.save({"params_ema": NETWORKS[request.param]().state_dict()}, path)
    return request.param, path


def test_a_foreign_network_runs_and_it_is_said(saved, caplog):
    name, path = saved
    opened = Restorer.open(path, settings=UpscaleSettings(tile=0))
    assert f"{name} is not a network of restorer" in caplog.text
    assert any("spandrel" in note for note in opened.engine.notes)
    pixels = random_array((21, 34, 3))
    theirs = spandrel.ModelLoader(device="cpu").load_from_file(path)
    with torch.no_grad():
        exact = theirs(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)
    done = opened.restore(Picture(pixels=pixels)).pixels
    assert np.abs(done - exact[0].permute(1, 2, 0).numpy() * 255).max() <= 0.6
    tiny = opened.restore(Picture(pixels=random_array((3, 5, 3))))
    assert tiny.size == (6, 10)


def test_a_foreign_network_runs_in_tiles(saved):
    _, path = saved
    opened = Restorer.open(path, settings=UpscaleSettings(tile=32))
    assert opened.restore(Picture(pixels=random_array((90, 70, 3)))).size == (180, 140)


@pytest.mark.slow
def test_a_foreign_network_becomes_a_file(saved, tmp_path):
    """Of fixed size; of free sides where the network traces to more than one size, else it is refused, never wrong."""
    name, path = saved
    model = open_model(path)
    export_model(model, tmp_path / "a.onnx", form=GraphForm(size=(48, 64)))
    engine = open_onnx_file(tmp_path / "a.onnx", facts={})
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert torch.allclose(engine.run({"image": x})["image"], model.network(x), atol=1e-4)
    if name == "SPAN":
        export_model(model, tmp_path / "free.onnx")
    if name != "SwinIR":  # DAT is refused in the same way, which takes as long again
        return
    with pytest.raises((NumericalError, UnsupportedError), match="--static HxW"):
        export_model(model, tmp_path / "free.onnx")
    assert not (tmp_path / "free.onnx").exists()


def test_weights_that_nobody_knows_stay_unknown(tmp_path):
    torch.save({"enc.0.w": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(UnknownWeightsError, match="no network recognises these weights"):
        open_model(tmp_path / "a.pth")


def test_without_spandrel_its_networks_are_unknown_with_the_cure(saved, monkeypatch):
    _, path = saved
    monkeypatch.setattr("restorer.api.load_foreign", lambda weights, facts: None)
    monkeypatch.setattr("restorer.machine.installed", lambda package: "")
    with pytest.raises(UnknownWeightsError, match=r'pip install "restorer\[spandrel\]"'):
        open_model(path)


def test_networks_that_take_squares_only_are_refused(monkeypatch):
    load = spandrel.ModelLoader.load_from_state_dict

    def squares(self, weights):
        found = load(self, weights)
        found.size_requirements = spandrel.SizeRequirements(square=True)
        return found

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", squares)
    with pytest.raises(UnsupportedError, match="square pictures only"):
        foreign.load_foreign(span().state_dict(), facts={})


def test_spandrels_own_way_to_call_a_network_is_kept(tmp_path):
    """Some networks are not called with the picture alone, or their output is not yet the picture."""
    from spandrel.architectures.DRUNet import DRUNet
    from spandrel.architectures.MixDehazeNet import MixDehazeNet

    torch.manual_seed(0)
    for network in (
        MixDehazeNet(embed_dims=[8, 16, 32, 16, 8], depths=[1, 1, 1, 1, 1]),
        DRUNet(in_nc=4, nb=4, nc=[8, 16, 24, 32]),
    ):
        weights = network.state_dict()
        theirs = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(weights))
        ours = foreign.load_foreign(weights, facts={})
        x = torch.rand(1, 3, 64, 80)
        with torch.no_grad():
            assert torch.allclose(ours.network(x).clamp(0, 1), theirs(x), atol=1e-5)


def test_weights_that_spandrel_knows_but_cannot_build_are_one_line(tmp_path):
    from restorer.errors import WeightsError

    weights = dict(span().state_dict())
    weights.pop("conv_2.eval_conv.bias")
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: spandrel cannot build these weights") as caught:
        open_model(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def test_converted_weights_are_read_again(saved, tmp_path):
    from restorer.apps.cli import main

    name, path = saved
    assert main(["models", "convert", str(path), str(tmp_path / "b.safetensors")]) == 0
    first, second = open_model(path), open_model(tmp_path / "b.safetensors")
    assert second.spec.name == f"spandrel:{name}"
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(first.network(x), second.network(x))

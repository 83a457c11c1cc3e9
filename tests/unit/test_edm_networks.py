"""EDM's and Ref-Diff's networks: sizes as published, what they refuse, and what conditioning may change."""

from dataclasses import replace

import pytest
import torch

from rsdiff.networks.dhariwal_unet import DhariwalUNetConfig
from rsdiff.networks.edm_unet import Init, ResampledConv2d, group_norm
from rsdiff.networks.refdiff_unet import RefDiffUNetConfig
from rsdiff.networks.song_unet import SongUNetConfig

SONG = SongUNetConfig(model_channels=16, channel_mult=(1, 2), num_blocks=1, attention_levels=(1,))
NCSNPP = replace(SONG, embedding="fourier", noise_width_factor=2, pyramid="residual", resample_filter=(1, 3, 3, 1))
ADM = DhariwalUNetConfig(model_channels=32, channel_mult=(2, 4), num_blocks=1, attention_levels=(0, 1))


@pytest.mark.parametrize(
    ("options", "channels", "parameters"),
    [
        (SongUNetConfig(channel_mult=(2, 2, 2), attention_levels=(1,), class_labels=10, augment_labels=9), 3, 55_735_299),
        (SongUNetConfig(augment_labels=9), 3, 61_805_571),
        (DhariwalUNetConfig(class_labels=1000), 3, 295_899_267),
    ],
    ids=["CIFAR-10 DDPM++", "FFHQ DDPM++", "ImageNet ADM"],
)
def test_published_configurations_have_the_published_numbers_of_parameters(options, channels, parameters):
    with torch.device("meta"):
        network = options.build(channels, channels)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_published_refdiff_has_116_740_739_parameters():
    with torch.device("meta"):
        network = RefDiffUNetConfig().build(3, 3)
    assert sum(p.numel() for p in network.parameters()) == 116_740_739


@pytest.mark.parametrize(
    "options", [SONG, NCSNPP, replace(SONG, pyramid="skip", output_heads="sum"), ADM], ids=["ddpmpp", "ncsnpp", "skip", "adm"]
)
@pytest.mark.parametrize("size", [(8, 12), (16, 6)])
def test_output_has_the_size_of_the_input(options, size):
    network = options.build(5, 2).eval()
    with torch.no_grad():
        assert network(torch.randn(3, 5, *size), torch.zeros(3)).shape == (3, 2, *size)


@pytest.mark.parametrize("options", [SONG, NCSNPP, ADM], ids=["ddpmpp", "ncsnpp", "adm"])
def test_an_image_does_not_see_the_others_of_its_batch(options):
    torch.manual_seed(0)
    network = options.build(3, 3).eval()
    x, level = torch.randn(3, 3, 8, 8), torch.randn(3)
    with torch.no_grad():
        torch.testing.assert_close(network(x, level)[1:2], network(x[1:2], level[1:2]), atol=1e-5, rtol=1e-4)


def test_fresh_networks_predict_nothing():
    """Output layers start at (nearly) zero, so training starts from the preconditioned skip path."""
    torch.manual_seed(0)
    for options, bound in ((SONG, 1e-3), (ADM, 0.0)):
        output = options.build(3, 3)(torch.randn(1, 3, 8, 8), torch.zeros(1))
        assert output.abs().max() <= bound


def test_absent_labels_are_labels_of_zero():
    torch.manual_seed(0)
    for options in (replace(SONG, class_labels=3, augment_labels=9), replace(ADM, class_labels=3, augment_labels=9)):
        network = options.build(3, 3).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        x, level = torch.randn(2, 3, 8, 8), torch.randn(2)
        with torch.no_grad():
            torch.testing.assert_close(network(x, level), network(x, level, torch.zeros(2, 3), torch.zeros(2, 9)))


def test_every_condition_of_refdiff_reaches_its_output():
    torch.manual_seed(0)
    network = RefDiffUNetConfig(trunk=SONG, modulation_width=4).build(3, 3).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    inputs = [torch.randn(1, 3, 8, 8), torch.randn(1), torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8), torch.rand(1, 1, 8, 8)]
    with torch.no_grad():
        usual = network(*inputs)
        for index in range(len(inputs)):
            changed = [value + 0.5 if index == position else value for position, value in enumerate(inputs)]
            assert not torch.allclose(network(*changed), usual), f"input {index} is ignored"


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1)])
@pytest.mark.parametrize("fused", [False, True])
def test_resampling_keeps_the_mean_of_a_constant_image(taps, fused):
    constant = torch.full((1, 2, 16, 16), 0.7)
    down = ResampledConv2d(2, 2, 0, "down", taps)(constant)
    up = ResampledConv2d(2, 2, 0, "up", taps)(constant)
    for image in (down, up):
        inner = image[..., 2:-2, 2:-2]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.7))
    layer = ResampledConv2d(2, 2, 3, "down", taps, Init("xavier_uniform"), fused)
    assert layer(constant).shape == (1, 2, 8, 8)


def test_impossible_widths_and_levels_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="multiples of 4"):
        group_norm(3, 1e-5)
    with pytest.raises(ValueError, match="levels of channel_mult are 0 to 1"):
        SongUNetConfig(channel_mult=(1, 2), attention_levels=(2,))
    with pytest.raises(ValueError, match="channel_mult is empty"):
        DhariwalUNetConfig(channel_mult=(), attention_levels=())
    with pytest.raises(ValueError, match="no class or augmentation labels"):
        RefDiffUNetConfig(trunk=SongUNetConfig(augment_labels=9))

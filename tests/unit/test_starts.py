"""Models that are to begin at a simple estimate do: fresh ones restore the enlarged LR image, or the regression of the bands."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rsdiff.diffusion.bases import EnlargedConfig
from rsdiff.diffusion.regression_base import RegressionConfig
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Method, MethodConfig, Problem
from rsdiff.methods.ediffsr import EDiffSRConfig
from rsdiff.methods.idm import IDMConfig
from rsdiff.methods.perceptual import PerceptualLossConfig
from rsdiff.methods.regression import AWANConfig, HSCNNPlusConfig, MSTLConfig, MSTPlusPlusConfig, RegressionMethodConfig, RRDBMethodConfig
from rsdiff.methods.sadn import SADNConfig
from rsdiff.methods.spsr import SPSRConfig
from rsdiff.networks.discriminators import PatchConfig
from rsdiff.networks.edsr import EDSRConfig
from rsdiff.networks.rrdb import RRDBNetConfig
from rsdiff.networks.running_regression import RunningRegression
from rsdiff.networks.spsr import SPSRNetConfig
from tests.method_losses import losses_of
from tests.unit.test_spectral_methods import batch_of, noise_of

SMALL_SADN = {"width": 8, "groups": 1, "layers": 1, "levels": 2, "fuse_width": 8, "base": EnlargedConfig()}
AT_ENLARGED: dict[str, MethodConfig] = {
    "rrdb": RRDBMethodConfig(network=RRDBNetConfig(width=4, blocks=1, growth=4), base=EnlargedConfig()),
    "rrdb orthogonal": RRDBMethodConfig(network=RRDBNetConfig(width=4, blocks=1, growth=4), initial="orthogonal", base=EnlargedConfig()),
    "spsr": SPSRConfig(
        network=SPSRNetConfig(width=4, blocks=1, growth=4, taps=(1,)),
        base=EnlargedConfig(),
        perceptual=PerceptualLossConfig(weight=0.0),
        discriminator=PatchConfig(width=4, layers=1),
    ),
    "sadn": SADNConfig(**SMALL_SADN),  # type: ignore[arg-type]
    "sadn plain": SADNConfig(body="edsr", edsr=EDSRConfig(width=8, blocks=1), normalise=False, mean_shift=False, **SMALL_SADN),  # type: ignore[arg-type]
    "idm": IDMConfig(
        width=8,
        multipliers=(1, 2),
        blocks=1,
        norm_groups=4,
        encoder=EDSRConfig(width=8, blocks=1),
        prediction="clean",
        base=EnlargedConfig(),
    ),
    "ediffsr": EDiffSRConfig(width=16, encoders=(1,), decoders=(1,), prediction="clean"),
}
AT_REGRESSION: dict[str, RegressionMethodConfig] = {
    "mstpp": MSTPlusPlusConfig(stages=1, width=8, blocks=(1, 1), base=RegressionConfig(ridge=1e-9)),
    "mst_l": MSTLConfig(width=8, blocks=(1, 1), base=RegressionConfig(ridge=1e-9)),
    "hscnn_plus": HSCNNPlusConfig(blocks=1, base=RegressionConfig(ridge=1e-9)),
    "awan": AWANConfig(width=16, blocks=1, base=RegressionConfig(ridge=1e-9)),
}


def build(options: MethodConfig, problem: Problem) -> Method:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return options.build(problem)


@pytest.mark.parametrize("kind", AT_ENLARGED)
def test_a_fresh_model_restores_the_enlarged_image_and_training_moves_it(kind: str) -> None:
    method = build(AT_ENLARGED[kind], Problem(4, 3, 3))
    lr, hr = torch.rand(2, 3, 6, 5), torch.rand(2, 3, 24, 20)
    batch = replace(batch_of(hr, lr), lr_size=(6, 5))
    noise = noise_of("a", "b")
    restored = method.eval().restore(batch, SamplerConfig(solver="ddim", steps=1), noise)
    torch.testing.assert_close(restored, F.interpolate(lr, (24, 20), mode="bicubic", align_corners=False), atol=2e-5, rtol=0)
    losses_of(method.train(), batch, noise).total.backward()
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("kind", AT_REGRESSION)
def test_a_fresh_model_restores_the_regression_of_the_bands(kind: str) -> None:
    method = build(AT_REGRESSION[kind], Problem(1, 12, 3))
    lr = torch.rand(2, 3, 16, 16)
    hr = torch.rand(2, 12, 16, 16) * 0.1 + lr.repeat(1, 4, 1, 1)
    regression = RunningRegression(3, 12, 1e-9)
    regression.accumulate(lr, hr)
    regression.solve()
    losses_of(method.train(), batch_of(hr, lr), noise_of("a", "b"))
    method.after_step(method.stages()[-1], 0)
    torch.testing.assert_close(method.eval().restore(batch_of(hr, lr), SamplerConfig(), noise_of("a", "b")), regression(lr))


@pytest.mark.parametrize("kind", [kind for kind in AT_ENLARGED if kind.split()[0] in ("rrdb", "spsr", "idm")])
def test_a_start_of_other_bands_than_the_target_is_refused(kind: str) -> None:
    sentence = AT_ENLARGED[kind].refuse(Problem(4, 5, 3))
    assert sentence is not None
    assert "set model." in sentence

"""Every diffusion of the repository with an exact network in the place of its own: how it is built, sampled and judged.

A case says what a perfect network is worth under the published sampler and in the published loss. Bounds are statements about those
samplers: those of many levels are exact up to chance, those of 20 levels lose a part of the spread that is known and held here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import Tensor, nn

from rsdiff.app.groups import GROUPS
from rsdiff.app.schemas import register_schemas
from rsdiff.config import config_from_mapping
from rsdiff.data.sample import Batch
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.diffusion.sampler import SamplerConfig
from rsdiff.methods.base import Method, Problem
from tests.conftest import REPOSITORY
from tests.learning import exact
from tests.learning.exact import Exact, Restorer, Space, alphas_bar_of, bicubic, cosine_betas, linear_betas
from tests.learning.published import (
    Expected,
    Law,
    absolute_noise,
    ediffsr_loss,
    edm_loss,
    log_normal,
    of_table,
    score_loss,
    squared_clean,
    squared_noise,
    ve_law,
    vp_law,
)
from tests.learning.spreads import Spread, ancestral, edm_heun, edm_stochastic_heun, euler_maruyama, learned_variance
from tests.learning.world import GaussianWorld

SKELETON = {"width": 16, "multipliers": [1, 1], "blocks": 1, "norm_groups": 8}
CONTRAST = {"width": 4, "queue_size": 64}
SRDSRAN = {"width": 16, "groups": 1, "blocks": 1}
RRDB = {"width": 8, "blocks": 2, "growth": 4}


@cache
def world() -> GaussianWorld:
    """The world of most cases: 12 x 12 pixels, one band, blurred, halved, with noise."""
    return GaussianWorld(side=12)


@cache
def published_options(group: str, name: str) -> Mapping[str, Any]:
    """Return conf/<group>/<name>.yaml with its defaults, as a user gets it."""
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base=None):
        composed = OmegaConf.to_container(compose("config", [f"{group}={name}"])[group], resolve=True)
    assert isinstance(composed, dict)
    return {str(key): value for key, value in composed.items()}


def published_sampler(name: str) -> SamplerConfig:
    """Return conf/sampler/<name>.yaml."""
    options = {key: value for key, value in published_options("sampler", name).items() if key != "kind"}
    return config_from_mapping(SamplerConfig, options, "sampler")


def build(name: str, sizes: Mapping[str, Any], problem: Problem) -> Method:
    """Return the method of conf/model/<name>.yaml with other sizes."""
    options = _merged(published_options("model", name), sizes)
    kind = options.pop("kind")
    return config_from_mapping(GROUPS["model"][kind], options, "model").build(problem)


def _merged(options: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(options)
    for key, value in changes.items():
        result[key] = _merged(result[key], value) if isinstance(value, Mapping) and isinstance(result.get(key), Mapping) else value
    return result


@dataclass(frozen=True)
class Case:
    """A method with an exact network.

    model      option of conf/model
    sampler    option of conf/sampler, the published one
    install    puts the exact network in and returns it
    expected   the published loss of a perfect network; term is its name among the losses, and divisor what the total is divided by
    law        levels of training
    spread     what the published sampler keeps of the true spread with a perfect network, see tests.learning.spreads
    tolerance  of the measured spread, relative; chance is 0.012
    loss_tolerance  of the mean loss, relative; chance is 0.01
    shared     whether the images of a batch share their level
    samples    restored targets
    """

    model: str
    sampler: str
    install: Callable[[Method, GaussianWorld], Exact]
    spread: Spread
    expected: Expected
    law: Law
    term: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.04
    loss_tolerance: float = 0.03
    shared: bool = False
    samples: int = 128
    divisor: float = 1.0
    views: int = 1
    batch: int = 16
    batches: int = 48

    def build(self) -> tuple[Method, Exact]:
        """Return the method in evaluation mode and the exact network in it."""
        torch.manual_seed(0)
        problem = Problem(world().scale, world().bands, world().bands)
        method = build(self.model, self.sizes, problem)
        network = self.install(method, world())
        return method.eval(), network

    def restored(self, sampler: SamplerConfig | None = None) -> tuple[Tensor, Batch]:
        """Return samples of as many targets, and their batch."""
        method, _ = self.build()
        batch = replace(with_reference(world().batch(self.samples, seed=1), world()), hr=None)
        noise = SeededNoise([(1, "restore", index) for index in range(self.samples)])
        return method.restore(batch, sampler or published_sampler(self.sampler), noise), batch

    def losses(self, gain: float = 1.0) -> tuple[Tensor, Tensor, Exact]:
        """Return (loss of every training batch, the levels drawn (N,), the network) at a gain of the predicted noise."""
        method, network = self.build()
        network.train()
        network.gain = gain
        found = []
        with torch.no_grad():
            for step in range(self.batches):
                found.append(self.loss(method, step))
        return torch.stack(found), torch.cat(network.sigmas), network

    def loss(self, method: Method, step: int) -> Tensor:
        """Return the term of one training batch."""
        batch = with_reference(world().batch(self.batch, seed=100 + step, views=self.views), world())
        noise = SeededNoise([(1, "train", step, index) for index in range(self.batch)], shared=(1, "step", step))
        return all_terms(method, batch, noise)[self.term] / self.divisor


def with_reference(batch: Batch, world: GaussianWorld) -> Batch:
    """Return the batch with a reference that shows other ground, all of it called unchanged."""
    other = world.draw(len(batch), seed=9)
    return replace(batch, ref=other, change_mask=torch.zeros_like(other[:, :1]))


def all_terms(method: Method, batch: Batch, noise: SeededNoise) -> dict[str, Tensor]:
    """Return the named losses of the first group of a method's last stage, and their total."""
    losses = next(iter(method.losses(batch, method.stages()[-1], noise).values()))
    return {**losses.terms, "total": losses.total.detach()}


def _concatenated(table: Tensor | None = None) -> Callable[[Method, GaussianWorld], Exact]:
    def install(method: Method, world: GaussianWorld) -> Exact:
        method.network = exact.Concatenated(world, table)
        return method.network

    return install


class _Nearest(nn.Module):
    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        return exact.nearest(lr, size)


def _idm(method: Method, world: GaussianWorld) -> Exact:
    method.encoder, method.network = _Nearest(), exact.ExactIDM(world)
    return method.network


def _edm(kind: str) -> Callable[[Method, GaussianWorld], Exact]:
    def install(method: Method, world: GaussianWorld) -> Exact:
        method.network = exact.ExactEDM(world, kind)
        return method.network

    return install


def _refdiff(method: Method, world: GaussianWorld) -> Exact:
    method.network = exact.ExactRefDiff(world)
    return method.network


def residual_space(world: GaussianWorld) -> Space:
    """DiffBSR's residual 2 (HR - estimate) of images in [-1, 1], beside the bicubic estimate."""
    return Space(4.0, lambda lr: -2.0 - 2 * bicubic(2 * lr - 1, (world.side, world.side)))


def _joint(make: Callable[[GaussianWorld], Exact]) -> Callable[[Method, GaussianWorld], Exact]:
    def install(method: Method, world: GaussianWorld) -> Exact:
        method.restorer = Restorer(world.side)
        if hasattr(method, "condition"):
            method.condition = Condition()
        method.unet = make(world)
        return method.unet

    return install


class Condition(nn.Module):
    """Stands for SRDiff's condition network: the LR in [0, 1]."""

    def trunk(self, lr: Tensor) -> list[Tensor]:
        """Features, of which every third is shown."""
        return [lr] * 3


def _blinddiff(method: Method, world: GaussianWorld) -> Exact:
    kept = torch.tensor([round(i * 999 / 499) for i in range(500)])
    network = exact.ExactBlindDiff(world, kept, torch.full((21, 21), 1 / 441))
    network.size_multiple = 1  # type: ignore[assignment]
    network.enlarge = network.enlarge_lr  # type: ignore[assignment]
    method.network = network
    return network


def _ediffsr(method: Method, world: GaussianWorld) -> Exact:
    method.network = exact.ExactEDiffSR(world)
    return method.network


SR3_TABLE = alphas_bar_of(linear_betas(1e-6, 1e-2, 2000))
DDPM_TABLE = alphas_bar_of(linear_betas(1e-4, 2e-2, 2000))
DDPM_1000 = alphas_bar_of(linear_betas(1e-4, 2e-2, 1000))
COSINE_1000 = alphas_bar_of(cosine_betas(1000))
COSINE_100 = alphas_bar_of(cosine_betas(100))
DIFFBSR_TABLE = alphas_bar_of((linear_betas(1e-6, 0.01, 20) + 1.5 * cosine_betas(20)).clip(0, 0.999))


def start_of_refdiff(world: GaussianWorld) -> Tensor:
    """Variance by axis of 80 times the repeated LR in [-1, 1], from which Ref-Diff's sampler starts without noise."""
    count, side = world.lr_side**2, world.lr_side
    units = torch.eye(count, dtype=torch.float64).reshape(count, 1, side, side)
    enlarge = exact.nearest(units, (world.side, world.side)).flatten(1).T
    a, axes = world.operator, world.posterior(torch.zeros(1, 1, side, side)).axes
    lr = a @ world.covariance @ a.T + world.noise**2 * torch.eye(count, dtype=torch.float64)
    seen = axes.T @ enlarge
    return 160.0**2 * ((seen @ lr) * seen).sum(1)


EDIFFSR = exact.ExactEDiffSR(world())


def whole(table: Tensor, ends_clean: bool = True) -> Spread:
    """Ancestral sampling through every level of a table."""
    return ancestral(table.flip(0).tolist(), ends_clean)


SONG = {"song": {"model_channels": 16, "channel_mult": [1], "attention_levels": []}}
JOINT = {"unet": SKELETON, "contrast": CONTRAST}
EDM_SPREAD = edm_heun(18, 0.002, 80.0)


def joint_case(
    model: str,
    sampler: str,
    network: Callable[[GaussianWorld], Exact],
    what: tuple[Spread, Expected, Law],
    sizes: Mapping[str, Any],
    shared: bool = False,
) -> Case:
    """Return the case of a blind diffusion method, whose restorer and contrast are left as they are drawn."""
    return Case(model, sampler, _joint(network), *what, "diffusion", sizes, shared=shared, views=2)


CASES: dict[str, Case] = {
    "sr3": Case(
        "sr3",
        "sr3_strided",
        _concatenated(),
        ancestral(SR3_TABLE[::50].flip(0).tolist(), ends_clean=False),
        absolute_noise,
        of_table(SR3_TABLE, True),
        "total",
        SKELETON,
        shared=True,
        batch=8,
        batches=64,
    ),
    "ddpm": Case(
        "ddpm",
        "sr3_ancestral",
        _concatenated(DDPM_TABLE),
        whole(DDPM_TABLE),
        absolute_noise,
        of_table(DDPM_TABLE, False),
        "total",
        {**SKELETON, "condition": "bicubic"},
    ),
    "idm": Case(
        "idm",
        "sr3_ancestral",
        _idm,
        whole(SR3_TABLE),
        absolute_noise,
        of_table(SR3_TABLE, True),
        "total",
        {**SKELETON, "draw_scale": False},
        shared=True,
        batch=8,
        batches=64,
    ),
    "edm": Case("edm_sr", "edm", _edm("edm"), EDM_SPREAD, edm_loss, log_normal, "total", SONG),
    "edm_vp": Case("edm_sr", "edm", _edm("vp"), EDM_SPREAD, score_loss, vp_law, "total", {**SONG, "preconditioning": "vp"}),
    "edm_ve": Case("edm_sr", "edm", _edm("ve"), edm_heun(18, 0.02, 80.0), score_loss, ve_law, "total", {**SONG, "preconditioning": "ve"}),
    "refdiff": Case(
        "refdiff",
        "refdiff",
        _refdiff,
        edm_stochastic_heun(start_of_refdiff(world()), 256, 0.002, 80.0, 40.0, 0.05, 50.0, 1.003),
        edm_loss,
        log_normal,
        "total",
        {"network": {"trunk": {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}, "modulation_width": 4}},
        divisor=16 / 256,  # the sum over a batch is divided by 256, whatever the batch
    ),
    "diffbsr": joint_case(
        "diffbsr",
        "diffbsr",
        lambda world: exact.Concatenated(world, None, residual_space(world)),
        (whole(DIFFBSR_TABLE), absolute_noise, of_table(DIFFBSR_TABLE, True)),
        {**JOINT, "restorer": SRDSRAN},
        shared=True,
    ),
    "diffbsr_ddpm": joint_case(
        "diffbsr_ddpm",
        "diffbsr_ddpm",
        lambda world: exact.Concatenated(world, DDPM_1000),
        (whole(DDPM_1000), absolute_noise, of_table(DDPM_1000, False)),
        {**JOINT, "restorer": SRDSRAN},
    ),
    "diffbsr_srdiff": joint_case(
        "diffbsr_srdiff",
        "diffbsr_srdiff",
        lambda world: exact.ExactSRDiff(world, COSINE_100, residual_space(world)),
        (whole(COSINE_100), absolute_noise, of_table(COSINE_100, False)),
        {
            "unet": {"width": 8, "multipliers": [1, 1], "condition_width": 4, "condition_blocks": 2, "condition_growth": 4},
            "contrast": CONTRAST,
            "restorer": RRDB,
        },
    ),
    "blindsrsnf": joint_case(
        "blindsrsnf",
        "blindsrsnf_step",
        exact.ExactBlindSRSNF,
        (ancestral(COSINE_1000[::50].flip(0).tolist(), ends_clean=False), squared_clean, of_table(COSINE_1000, True)),
        {**JOINT, "restorer": RRDB},
    ),
    "blinddiff": Case(
        "blinddiff",
        "blinddiff",
        _blinddiff,
        learned_variance(DDPM_1000[[round(i * 999 / 499) for i in range(500)]].flip(0).tolist()),
        squared_noise,
        of_table(DDPM_1000[[round(i * 999 / 499) for i in range(500)]], False),
        "noise",
        {
            "network": {"width": 4, "blocks": [1, 1], "heads": [1, 1], "refinement": 1},
            "guidance": {"weight": 0.0},
            "kernel_weight": 0.0,
        },
        batches=96,
        loss_tolerance=0.05,  # squared errors of the few images at the lowest levels make most of it
    ),
    "ediffsr": Case(
        "ediffsr",
        "ediffsr",
        _ediffsr,
        euler_maruyama(EDIFFSR.drifts.tolist(), EDIFFSR.totals.tolist()),
        ediffsr_loss,
        of_table((-2 * EDIFFSR.totals[1:]).exp(), False),
        "total",
        {"width": 16, "encoders": [1], "decoders": [1], "middle": 1},
    ),
}

LONG_RUNS = {"ddpm", "idm", "diffbsr_ddpm"}
"""Cases whose sampler makes 1000 evaluations or more: `make test-learning` has them, CI has their twins."""

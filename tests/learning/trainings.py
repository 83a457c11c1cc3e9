"""Fresh networks trained on worlds whose best answer is known, and held to it: python -m tests.learning.trainings [NAME ...].

Every training takes the model of conf/model/<name>_tiny.yaml with its published objective and, where it samples, its published sampler,
and the real trainer. What it has reached is measured at every validation on textures that it never saw, and kept in a file beside its
checkpoints; a training that is stopped goes on where it was. `tests.learning.report` makes a page of these files.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from documentation.names import chosen
from rsdiff.data.sample import Batch
from rsdiff.degradations.bands import BandsConfig
from rsdiff.diffusion.noise import SeededNoise
from rsdiff.methods.base import Method, Problem
from rsdiff.training.checkpoints import read_checkpoint
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig, TrainerConfig
from rsdiff.training.trainer import Trainer
from tests.conftest import REPOSITORY
from tests.learning.blind import BlindWorld
from tests.learning.cases import CASES, Case, build, published_sampler, with_reference, world
from tests.learning.checks import GROUPS, root_mean_square
from tests.learning.mixture import MixtureWorld
from tests.learning.world import GaussianWorld, Posterior

RECORDS = "learning.json"
FOLDER = REPOSITORY / "outputs" / "learning"
TEXTURES, DRAWS = 64, 4
"""Restored textures, and restorations of each by methods that sample."""
VALIDATIONS = 6
LOSS_BATCHES = 32
OCTAVES = tuple(2.0**power for power in range(-8, 1))
"""Bounds of the ranges of noise by which the loss is told, in images of [0, 1], whose posterior has deviations of 1/150 to 1/30."""
LEVELS, ENOUGH = 1024, 3
"""Noise levels drawn for that, and how many a range must have."""
REFERENCE_NOISE = 0.03
OPEN = 1e-6
"""Variance, in images of [0, 1], from which on an axis of the posterior is open."""


@dataclass(frozen=True)
class Ground:
    """What a method is trained on and judged by.

    trained    worlds of the training steps, in turn
    judged     worlds of the textures that are restored, by what they are called
    reference  whether half of the references show the target (with noise) and half, marked as changed, other ground; otherwise all show
               other ground and none is marked
    """

    trained: Sequence[GaussianWorld]
    judged: Mapping[str, GaussianWorld]
    reference: bool = False


@cache
def plain(side: int = 12) -> Ground:
    """Textures under one known degradation."""
    place = world() if side == world().side else GaussianWorld(side)
    return Ground((place,), {"": place})


@cache
def any_scale() -> Ground:
    """Textures at three scales, judged at two more."""
    seen, unseen = (1.5, 2.0, 3.0), (12 / 7, 2.4)
    places = {scale: GaussianWorld(12, scale) for scale in (*seen, *unseen)}
    names = {scale: f"x{scale:.3g}{'' if scale in seen else ' (not trained)'}" for scale in places}
    return Ground([places[scale] for scale in seen], {names[scale]: place for scale, place in places.items()})


@cache
def blind(side: int = 12, taps: int = 7) -> Ground:
    """Textures under a blur of unknown width."""
    place = BlindWorld(side, taps)
    return Ground((place,), {"": place})


@cache
def two_textures() -> Ground:
    """Textures of two kinds, which makes the best answer bend."""
    place = MixtureWorld()
    return Ground((place,), {"": place})


@cache
def referenced() -> Ground:
    """Textures of which half come with a reference that shows them."""
    return Ground((world(),), {"right reference": world(), "wrong reference": world()}, reference=True)


@cache
def spectrum() -> Ground:
    """Eight correlated bands of which two are seen, without noise."""
    place = GaussianWorld(8, scale=1, bands=8, degradation=BandsConfig(bands=(1, 5)), noise=1e-4, correlation=0.8)
    return Ground((place,), {"": place})


@dataclass(frozen=True)
class Training:
    """A budget for one model.

    model    option of conf/model
    sampler  option of conf/sampler; None of a regression, which restores in one step
    case     the case of `tests.learning.cases` whose perfect network has the same objective, on `plain()` ground
    sizes    what is set beside the model's options: lengths of stages, how many queries an image of this size has
    views    crops per training image under one degradation
    after    the training whose weights this one begins with
    encodes  whether it encodes and decodes the target itself: what no restoration from its latents can be better than
    """

    model: str
    sampler: str | None = None
    case: str | None = None
    steps: int = 3000
    batch: int = 32
    lr: float = 2e-3
    sizes: Mapping[str, Any] = field(default_factory=dict)
    ground: Callable[[], Ground] = plain
    views: int = 1
    after: str | None = None
    encodes: bool = False

    def build(self) -> Method:
        """Return the method with fresh weights."""
        torch.manual_seed(0)
        place = self.ground().trained[0]
        return build(self.model, self.sizes, Problem(place.scale, place.bands, place.lr_bands))

    @property
    def twin(self) -> Case | None:
        """The case with the perfect network, under this model's own objective."""
        return None if self.case is None else replace(CASES[self.case], model=self.model)

    def undegraded(self, step: int) -> Batch:
        """Return the textures of a training step, with the decisions of their degradation."""
        ground = self.ground()
        place = ground.trained[step % len(ground.trained)]
        batch = place.undegraded(self.batch, 10_000 + step, self.views)
        return with_references(batch, place, step) if ground.reference else with_reference(batch, place)


REGRESSION_STEPS = 1500
JOINT = {"pretrain_steps": 1}  # of the regression alone, before the diffusion joins it; none is what a paper's pretrained file stands for
QUERIES = {"queries": 64}
SPECTRUM = {"strides": [2, 1], "centre": 0.5, "spread": 0.5, "guidance_weights": [0.0, 0.0]}
"""Of SCDM for eight bands; without guidance, which goes beyond the posterior on purpose. The published clamp of the state stays: without it
what a briefly trained network misses of the noise at the first levels leads 10 times as far from the target."""
KERNEL = 7
BLINDDIFF = {"network": {"kernel_size": KERNEL}}

TRAININGS: dict[str, Training] = {
    "rrdb": Training("rrdb_tiny", steps=REGRESSION_STEPS),
    "edm_sr": Training("edm_sr_tiny", "edm", "edm"),
    "sr3": Training("sr3_tiny", "sr3_strided", "sr3"),
    "liif": Training("liif_tiny", steps=REGRESSION_STEPS, sizes=QUERIES, ground=any_scale),
    "lte": Training("lte_tiny", steps=REGRESSION_STEPS, sizes=QUERIES, ground=any_scale),
    "danv2": Training("danv2_tiny", steps=REGRESSION_STEPS, sizes={"basis": {"kernel_size": KERNEL}}, ground=blind),
    "blindsrsnf": Training("blindsrsnf_tiny", "blindsrsnf_step", "blindsrsnf", sizes=JOINT, views=2),
    "blindsrsnf_quick": Training("blindsrsnf_quick", "blindsrsnf_step", "blindsrsnf", sizes=JOINT, views=2),
    "diffbsr": Training("diffbsr_tiny", "diffbsr", "diffbsr", sizes=JOINT, views=2),
    "metasr": Training("metasr_tiny", steps=REGRESSION_STEPS, sizes=QUERIES, ground=any_scale),
    "lmf_liif": Training("lmf_liif_tiny", steps=REGRESSION_STEPS, sizes=QUERIES, ground=any_scale),
    "ediffsr": Training("ediffsr_tiny", "ediffsr", "ediffsr"),
    "flow": Training("flow_tiny", "flow"),
    "resshift": Training("resshift_tiny", "resshift"),
    "refdiff": Training("refdiff_tiny", "refdiff", steps=1500, ground=referenced),
    "sadn": Training("sadn_tiny", steps=REGRESSION_STEPS),
    "bsrnet": Training("bsrnet_tiny", steps=REGRESSION_STEPS, ground=two_textures),
    "hat_l": Training("hat_l_tiny", steps=REGRESSION_STEPS, ground=lambda: plain(16)),
    "dcls": Training("dcls_tiny", steps=2 * REGRESSION_STEPS, ground=lambda: blind(24, 11)),
    "idm": Training("idm_tiny", "sr3_ancestral", "idm", sizes={"draw_scale": False}),
    "ddpm": Training("ddpm_tiny", "sr3_ancestral", "ddpm"),
    "drsr": Training("drsr_tiny", steps=REGRESSION_STEPS, ground=blind, views=2),
    "blinddiff": Training("blinddiff_tiny", "blinddiff", sizes=BLINDDIFF, ground=blind),
    "blinddiff_signed": Training(
        "blinddiff_tiny",
        "blinddiff",
        sizes={**BLINDDIFF, "data_range": "signed", "kernel_weight": float(KERNEL**2), "guidance": {"weight": 0.0}},
        ground=blind,
    ),
    "ldcsr_vae": Training(
        "ldcsr_vae_tiny",
        sizes={"perceptual_weight": 0.0, "discriminator": {"weight": 0.0}},  # which joins after 50,000 steps, and VGG16 sees three bands
        encodes=True,
    ),
    "ldcsr": Training("ldcsr_tiny", "ldcsr", after="ldcsr_vae"),
    "ldcsr_levels": Training("ldcsr_tiny", "ldcsr", sizes={"trained_through": "level"}, after="ldcsr_vae"),
    "scdm": Training("scdm_tiny", "scdm", sizes=SPECTRUM, ground=spectrum),
}


class Journal:
    """Prints how far a training is, with the time that is left."""

    def __init__(self, name: str) -> None:
        self.name, self._begun, self._first = name, time.monotonic(), 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See rsdiff.training.trainer.Journal."""

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        """See rsdiff.training.trainer.Journal."""
        self._first = self._first or step
        if step % 200 == 0:
            left = (time.monotonic() - self._begun) / max(1, step - self._first) * (total - step)
            print(f"{self.name}: step {step}/{total}, {left / 60:.0f} min left", flush=True)


def train(training: Training, name: str, folder: Path) -> dict[str, Any]:
    """Train in `folder`, or go on there, and return what was measured: by step under 'curve', with the size, and
    processor seconds (validations among them)."""
    method = training.build()
    if training.after is not None:
        method.begin_from(weights_of(training.after, folder))
    every = -(-training.steps // VALIDATIONS)
    options = TrainerConfig(
        steps=training.steps,
        batch=training.batch,
        validate_every_steps=every,
        save_every_steps=every,
        keep_checkpoints=1,
        best_metric=None,
        optimiser=OptimiserConfig(lr=training.lr),
        learning_rate=LearningRateConfig(shape="cosine"),
        ema=EmaConfig(rule="constant", decays=(0.99,)),
    )
    records = folder / RECORDS
    found: dict[str, Any] = json.loads(records.read_text()) if records.exists() else {"curve": {}, "seconds": 0.0}
    before, begun = found["seconds"], time.process_time()

    def loader(first: int) -> Iterator[Sequence[Batch]]:
        return ([training.undegraded(step)] for step in range(first, training.steps))

    def validate(step: int) -> dict[str, float]:
        with torch.no_grad():
            metrics: dict[str, Any] = {} if training.twin is None else {"loss": relative_loss(training, method)}
            if training.sampler is None or step >= training.steps:
                metrics |= {called: restoration(training, method, called) for called in training.ground().judged}
        found["curve"][str(step)] = metrics
        found["parameters"] = method.parameter_count()
        found["seconds"] = before + time.process_time() - begun
        records.parent.mkdir(parents=True, exist_ok=True)
        records.write_text(json.dumps(found, indent=1))
        print(f"{name}: step {step}: {metrics}", flush=True)
        return {}

    degradation = training.ground().trained[0].degradation
    card = {"config": {"model": training.model, **training.sizes}, "problem": {"scale": training.ground().trained[0].scale}}
    trainer = Trainer(
        options, method, degradation, loader, validate, Journal(name), Accelerator(cpu=True), folder / "checkpoints", card, seed=0
    )
    trainer.resume()
    if trainer.step < training.steps:
        trainer.fit()
    if training.twin is not None and "octaves" not in found:
        method.load_state_dict({**method.state_dict(), **read_checkpoint(folder / "checkpoints").best_weights})
        found["octaves"] = loss_by_octave(training, method)
        records.write_text(json.dumps(found, indent=1))
    return found


def weights_of(name: str, folder: Path) -> Mapping[str, Tensor]:
    """Return the weights that training `name` ended with, which is made where it is not finished; `folder` lies beside its own."""
    earlier = folder.with_name(name)
    train(TRAININGS[name], name, earlier)
    return read_checkpoint(earlier / "checkpoints").best_weights


def relative_loss(training: Training, method: Method) -> float:
    """Return the published loss relative to that of the perfect network, at the same levels and the same noise."""
    assert training.twin is not None
    perfect, _ = training.twin.build()
    own, best = (sum(float(training.twin.loss(one, step)) for step in range(LOSS_BATCHES)) for one in (method, perfect))
    return own / best


def loss_by_octave(training: Training, method: Method) -> list[float | None]:
    """Return the published loss relative to that of the perfect network by the deviation of the noise, in units of the image in [0, 1].

    The ranges are those between OCTAVES, and what lies below and above; None where training draws too few levels to tell (ENOUGH).
    """
    assert training.twin is not None
    case = training.twin if training.twin.shared else replace(training.twin, batch=1)
    perfect, network = case.build()
    method.eval()
    own, best, counts = (torch.zeros(len(OCTAVES) + 1, dtype=torch.float64) for _ in range(3))
    with torch.no_grad():
        for step in range(LEVELS):
            network.sigmas.clear()
            least = float(case.loss(perfect, step))
            deviation = float(network.sigmas[0][0]) / network.space.factor
            place = bisect(OCTAVES, deviation)
            best[place] += least
            own[place] += float(case.loss(method, step))
            counts[place] += 1
    return [float(a / b) if count >= ENOUGH else None for a, b, count in zip(own, best, counts, strict=True)]


def with_references(batch: Batch, place: GaussianWorld, seed: int, right: float = 0.5) -> Batch:
    """Return the batch with references: the first share `right` shows the target with noise, the others other ground, marked as changed."""
    hr = batch.need("hr")
    generator = torch.Generator().manual_seed(seed)
    shown = hr + REFERENCE_NOISE * torch.randn(hr.shape, generator=generator)
    is_right = (torch.arange(len(hr)) < right * len(hr))[:, None, None, None]
    mask = torch.zeros_like(hr[:, :1]).masked_fill(~is_right, 1.0)
    return replace(batch, ref=torch.where(is_right, shown, place.draw(len(hr), seed + 77)), change_mask=mask)


def restoration(training: Training, method: Method, called: str) -> dict[str, Any]:
    """Return the error of restorations beside the posterior's, and of samples their spread and their distance from the LR.

    estimate  root mean squared error of the mean of all restorations of a texture, relative to that of the best estimate
    sample    that of one restoration, relative to a perfect sample's
    spread    deviation of samples about their own mean along the axes of the posterior, relative to its own, in bands from what the LR
              leaves open to what it shows (where the posterior is Gaussian)
    misfit    deviation of the degraded samples from the LR, relative to that of perfect samples (likewise)
    kernel    error of the estimated kernel relative to that of the best estimate, where the blur is unknown
              and estimated

    Of an autoencoder the 'estimate' is the error of the decoded target, relative to that of the best estimate from the LR.
    """
    place = training.ground().judged[called]
    batch = place.batch(TEXTURES, seed=1)
    hr, posterior = batch.need("hr").double().flatten(1), place.posterior(batch.need("lr"))
    best = posterior.mean
    if training.ground().reference:
        batch = with_references(batch, place, seed=1, right=float(called == "right reference"))
        if called == "right reference":
            best = posterior.denoise(batch.need("ref").double().flatten(1), torch.full((TEXTURES,), REFERENCE_NOISE, dtype=torch.float64))
    else:
        batch = with_reference(batch, place)
    least = root_mean_square(best - hr)
    draws = DRAWS if training.sampler else 1
    sampler = published_sampler(training.sampler or "ddim")
    shown = batch if training.encodes else replace(batch, hr=None)
    made = torch.stack([method.restore(shown, sampler, _noise(draw)).double().flatten(1) for draw in range(draws)])
    found: dict[str, Any] = {"estimate": root_mean_square(made.mean(0) - hr) / least}
    if training.sampler:
        found["sample"] = root_mean_square(made[0] - hr) / (math.sqrt(2) * least)
        if isinstance(posterior, Posterior) and not training.ground().reference:
            found |= _beside(posterior, place, made, batch.need("lr"))
    if isinstance(place, BlindWorld):
        estimates, true = method.estimates(batch), batch.need("kernel").double()
        if "kernel" in estimates and estimates.get("true_kernel") is batch.kernel:  # DCLS estimates one of the LR's grid
            estimated = estimates["kernel"].double().reshape(true.shape)
            found["kernel"] = root_mean_square(estimated - true) / root_mean_square(place.best_kernels(batch.need("lr")) - true)
    return found


def _beside(posterior: Posterior, place: GaussianWorld, made: Tensor, lr: Tensor) -> dict[str, Any]:
    """Return 'spread' and, where the LR has noise, 'misfit' of restorations (draws, B, n)."""
    is_open = posterior.variances > OPEN
    apart = (made - made.mean(0)) * math.sqrt(len(made) / (len(made) - 1))
    standard = ((apart @ posterior.axes) / posterior.variances.sqrt())[..., is_open]
    perfect = posterior.sample(torch.Generator().manual_seed(2))
    off, least = (root_mean_square(images @ place.operator.T - lr.double().flatten(1)) for images in (made[0], perfect))
    spread = [root_mean_square(band) for band in standard.chunk(GROUPS, dim=-1)]
    return {"spread": spread, "misfit": off / least} if place.noise > math.sqrt(OPEN) else {"spread": spread}


def _noise(draw: int) -> SeededNoise:
    return SeededNoise([(3, "restore", draw, index) for index in range(TEXTURES)], shared=(3, draw))


def main(names: Sequence[str], folder: Path) -> None:
    """Train what is named, one after the other."""
    for name in chosen(names, TRAININGS, "training"):
        train(TRAININGS[name], name, folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of TRAININGS; none: all")
    parser.add_argument("--outputs", type=Path, default=FOLDER)
    given = parser.parse_args()
    main(given.names, given.outputs)

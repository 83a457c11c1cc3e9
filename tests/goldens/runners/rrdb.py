"""RRDBNet in its three layouts, its inference, and three training steps: `baselines`, `bsrgan`, `real_esrgan`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from rsdiff.data.sample import Batch, SampleMeta
from rsdiff.degradations import Paired
from rsdiff.degradations.rounding import to_uint8
from rsdiff.losses.images import ImageLossConfig
from rsdiff.methods.adversaries import AdversarialLossConfig, Relative
from rsdiff.methods.base import Problem
from rsdiff.methods.esrgan import ESRGAN, ESRGANConfig
from rsdiff.methods.perceptual import PerceptualLossConfig, VGG19Features
from rsdiff.methods.regression import Regression, RRDBMethodConfig
from rsdiff.methods.restoring import HaloTilesConfig
from rsdiff.networks.discriminators import UNetConfig
from rsdiff.networks.rrdb import RRDBNet, RRDBNetConfig
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig, TrainerConfig
from rsdiff.training.trainer import Trainer
from rsdiff.weights import export_weights, import_weights
from rsdiff.weights.keymaps.discriminators import discriminator_name
from rsdiff.weights.keymaps.rrdb import rrdb_name

from .. import fill
from ..case import AlmostEverywhere, Case, runner
from .discriminators import KINDS, LAYERS, described_draw
from .practical_images import bands_first, bands_last, described_image
from .words import given


def options_of(settings: Mapping[str, Any]) -> tuple[RRDBNetConfig, Problem]:
    """Return the generator and the problem of a published class's arguments: BasicSR's or KAIR's."""
    if "num_feat" in settings:
        config = RRDBNetConfig(width=settings["num_feat"], blocks=settings["num_block"], growth=settings["num_grow_ch"])
        return config, Problem(settings["scale"], bands=settings["num_out_ch"], lr_bands=settings["num_in_ch"])
    width, scale = settings.get("nf", settings.get("nc")), settings.get("sf", settings.get("upscale"))
    config = RRDBNetConfig(width=width, blocks=settings["nb"], growth=settings["gc"], head="stages")
    return config, Problem(scale, bands=settings["out_nc"], lr_bands=settings["in_nc"])


def load_method(case: Case) -> Regression:
    """Return the method with the case's weights, imported as a released file is; what the file tells must be what the case says."""
    generator, problem = options_of(case.config)
    tiles = HaloTilesConfig(**{ours: case.config[theirs] for ours, theirs in TILES.items() if theirs in case.config})
    config = RRDBMethodConfig(network=generator, tiles=tiles)
    published = case.weights()
    told, _ = import_weights("rrdb", {"params_ema": published})
    assert (told.network.width, told.network.blocks, told.network.growth) == (generator.width, generator.blocks, generator.growth)
    assert problem.scale == 4 or told.network.head == generator.head
    config, state = import_weights("rrdb", published, config)
    method = config.build(problem)
    method.load_state_dict(state)
    exported = export_weights("rrdb", config, state)
    assert all(torch.equal(value, exported[key]) for key, value in published.items() if key in exported)
    return method.eval()


TILES = {"tile": "tile", "halo": "tile_pad", "margin": "pre_pad"}


def image_of(case: Case) -> Tensor:
    return described_image(case.config["input"]) if "input" in case.config else given(case, "lr")


@runner("baselines", "rrdbnet", "rrdbnet_oldkeys_x4", "rrdbnet_oldkeys_x2", "rrdb_sequential_x4", "rrdbnet_features")
@runner("bsrgan", "rrdbnet", "rrdbnet_x4_full")
@runner("real_esrgan", "rrdbnet")
@torch.no_grad()
def rrdbnet(case: Case) -> dict[str, Any]:
    network, lr = load_method(case).network, image_of(case)
    feature = network.trunk(lr)[-1]
    image = network(lr)
    every = re.search(r"every (\d+)\w+ row", case.spec["outputs"]["out"])
    step = int(every[1]) if every else 1
    return {"out": image[..., ::step, ::step], "out1": feature, "mean": image.mean()[None], "std": image.std()[None]}


@runner("bsrgan", "inference_u8")
@torch.no_grad()
def inference_u8(case: Case) -> dict[str, Any]:
    words = case.config["input"]["post"]
    assert "round(255x)" in words, words
    raw = load_method(case).network(described_image(case.config["input"])[None])
    shown = 0.5 * raw + 0.5
    near_half = ((255 * shown.clamp(0, 1)) % 1 - 0.5).abs() < 1e-3
    # "at most 1 level off where 255*y is within 1e-3 of a half"
    image = AlmostEverywhere(bands_last(to_uint8(shown)[0]), share=float(near_half.float().mean()), by=1)
    return {"raw": raw if case.arrays["raw"].ndim == 4 else raw[0], "out": image if bool(near_half.any()) else image.value}


@runner("baselines", "realesrgan_enhance")
@torch.no_grad()
def enhance(case: Case) -> dict[str, Any]:
    method = load_method(case)
    image = bands_first(case.input("image_bgr")).flip(0)[None].float() / 255

    def enhanced(tile: int) -> Tensor:
        tiles = HaloTilesConfig(tile=tile, halo=method.images.tiles.halo, margin=method.images.tiles.margin)
        made = tiles.run(method.network, image, method.images.scale, method.network.unshuffle)
        return bands_last(to_uint8(made)[0].flip(0))

    return {"tiled": enhanced(case.config["tile"]), "whole": enhanced(0)}


class Log:
    """A journal that keeps the losses of every step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append(dict(values))

    def advance(self, step: int, total: int, values: Mapping[str, float], images_per_second: float) -> None:
        pass


def optimiser_of(settings: Mapping[str, Any], which: str) -> OptimiserConfig:
    """Return Adam as KAIR's options tell it; betas and decay of the discriminator are the generator's defaults."""
    betas = settings.get(f"{which}_optimizer_betas", (0.9, 0.999))
    return OptimiserConfig(lr=settings[f"{which}_optimizer_lr"], betas=tuple(betas), weight_decay=settings.get(f"{which}_optimizer_wd", 0))


def described_batches(words: str, scale: int, steps: int) -> list[Batch]:
    """Return the batches that the case describes: an LR image per step and its bicubic enlargement."""
    assert 'fill.image(f"' in words, words
    assert "bicubic" in words, words
    batches = []
    for step in range(1, steps + 1):
        lr = described_draw(words.replace("{s}", str(step)))
        hr = F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)
        metas = [SampleMeta(name=str(index), index=index) for index in range(len(lr))]
        size, lr_size = (hr.shape[-2], hr.shape[-1]), (lr.shape[-2], lr.shape[-1])
        batches.append(Batch(metas=metas, size=size, lr_size=lr_size, hr=hr, lr=lr))
    return batches


def initial_generator(case: Case) -> dict[str, Tensor]:
    """Return the filled generator, its last layer changed as the case's words say."""
    words = case.config["initial_weights"]
    found = re.search(r"conv_last\.weight and conv_last\.bias x([\d.]+), conv_last\.bias \+([\d.]+)", words)
    assert found, words
    weights = filled(case.spec["keys"]["G"])
    for key in ("conv_last.weight", "conv_last.bias"):
        weights[key] = weights[key] * float(found[1])
    weights["conv_last.bias"] = weights["conv_last.bias"] + float(found[2])
    return weights


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    values = fill.fill_state_dict({key: tuple(shape) for key, shape in shapes.items()})
    return {key: torch.from_numpy(value) for key, value in values.items()}


def filled_vgg19() -> dict[str, Tensor]:
    """Return VGG19's features, filled by torchvision's names."""
    numbers = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    widths = (64, 64, 128, 128, *(256,) * 4, *(512,) * 8)
    shapes: dict[str, Sequence[int]] = {}
    for number, before, width in zip(numbers, (3, *widths), widths, strict=False):
        shapes |= {f"features.{number}.weight": (width, before, 3, 3), f"features.{number}.bias": (width,)}
    return filled(shapes)


def adversarial_of(settings: Mapping[str, Any]) -> AdversarialLossConfig:
    """Return KAIR's game; its relativistic one averages over the batch."""
    name = settings["gan_type"]
    relative: Relative = "to_batch_mean" if name == "ragan" else "no"
    return AdversarialLossConfig(kind=KINDS["gan" if name == "ragan" else name], relative=relative, weight=settings["D_lossfn_weight"])


def gan_method(case: Case, generator: RRDBNetConfig, problem: Problem) -> ESRGAN:
    settings, judge = case.config["train"], case.config["netD"]
    assert settings["G_lossfn_type"] == "l1"
    assert settings["D_init_iters"] == 0
    assert settings["F_use_input_norm"]
    assert not settings["F_use_range_norm"]
    compared = settings["F_feature_layer"]
    alone = isinstance(compared, int)  # then KAIR ignores the weights
    perceptual = PerceptualLossConfig(
        weight=settings["F_lossfn_weight"],
        layers=(LAYERS[compared],) if alone else tuple(LAYERS[number] for number in compared),
        layer_weights=(1.0,) if alone else tuple(settings["F_weights"]),
        distance="l1" if settings["F_lossfn_type"] == "l1" else "l2",
    )
    config = ESRGANConfig(
        network=generator,
        loss=ImageLossConfig(l1=settings["G_lossfn_weight"]),
        perceptual=perceptual,
        adversarial=adversarial_of(settings),
        discriminator=UNetConfig(width=judge["ndf"]),
    )
    content = {"stage_1": filled(case.spec["keys"]["D"]), "stage_2": initial_generator(case)}
    told, _ = import_weights("esrgan", content)
    assert (told.discriminator.kind, told.discriminator.width) == ("unet", judge["ndf"])
    config, state = import_weights("esrgan", content, config)
    method = config.build(problem)
    method.load_state_dict(state)
    method.objective.perceptual.use(VGG19Features(filled_vgg19(), perceptual.layers))
    return method


@runner("bsrgan", "train_psnr_3steps", "train_gan_3steps")
def training(case: Case) -> dict[str, Any]:
    settings = case.config["train"]
    generator, problem = options_of(case.config["netG"])
    if "netD" in case.config:
        method: Regression | ESRGAN = gan_method(case, generator, problem)
    else:
        assert settings["G_lossfn_type"] == "l1"
        config, state = import_weights("rrdb", initial_generator(case), RRDBMethodConfig(network=generator))
        method = config.build(problem)
        method.load_state_dict(state)
    batches = described_batches(case.config["batches"], int(problem.scale), len(case.arrays["log"]))
    with torch.no_grad():
        outputs: dict[str, Any] = {"out_step1": method.network(batches[0].need("lr"))}
    options = TrainerConfig(
        steps=len(batches),
        batch=len(batches[0]),
        optimiser=optimiser_of(settings, "G"),
        optimisers={"discriminator": optimiser_of(settings, "D")} if isinstance(method, ESRGAN) else {},
        learning_rate=LearningRateConfig(
            shape="multistep", milestones=tuple(settings["G_scheduler_milestones"]), gamma=settings["G_scheduler_gamma"]
        ),
        ema=EmaConfig(rule="constant", decays=(settings["E_decay"],)),
        validate_every_steps=0,
        log_every_steps=1,
    )
    log = Log()

    def loader(start: int) -> Iterator[Sequence[Batch]]:
        return ([batch] for batch in batches[start:])

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            config=options,
            method=method,
            degradation=Paired(),
            loader=loader,
            validate=lambda step: {},
            journal=log,
            accelerator=Accelerator(cpu=True),
            store=Path(folder),
            card={},
            seed=0,
        )
        trainer.fit()
    assert trainer.average is not None
    states = {"G": method.state_dict(), "E": trainer.average.weights(method)[0]}
    for name in case.spec["outputs"]:
        which, _, key = name.partition("__")
        if key:
            outputs[name] = published_entry(method, states.get(which, states["G"]), "discriminator" if which == "D" else "network", key)
    factors = {
        "restorer/l1": settings.get("G_lossfn_weight", 1.0),
        "restorer/perceptual": settings.get("F_lossfn_weight", 0.0),
        "restorer/adversarial": settings.get("D_lossfn_weight", 0.0),
        "discriminator/real": 1.0,
        "discriminator/fake": 1.0,
    }
    outputs["log"] = np.array([[row[name] * factor for name, factor in factors.items() if name in row] for row in log.rows])
    return outputs


def published_entry(method: Regression | ESRGAN, state: Mapping[str, Tensor], part: str, key: str) -> Tensor:
    """Return an entry of the method's state dict by its published name."""
    network = method.get_submodule(part)
    name = rrdb_name("esrgan") if isinstance(network, RRDBNet) else discriminator_name(network)  # type: ignore[arg-type]
    ours = {name(own): own for own in network.state_dict()}
    return state[f"{part}.{ours[key]}"]

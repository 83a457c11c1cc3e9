"""Lightning checkpoints of DiffBSR, its ablations and BlindSRSNF: one layout, four sets of networks.

    encoder.*                restorer
    E.*                      degradation encoder in its MoCo wrapper (queue, key encoder)
    model.*                  U-Net
    ema.*                    its average: what BlindSRSNF evaluates with, and what DiffBSR never uses
    diffusion.denoise_fn.*   the U-Net again (DiffBSR)
    diffusion.rrdb.*         condition network (SRDiff ablation)
    diffusion.<buffer>       the noise schedule, derived anew here and compared

Settings come from `hyper_parameters` (EasyDicts, read as records); where a file has none, from keys and shapes, and what those do not tell
(groups of the normalisations, gates, loss weight) is taken to be published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rsdiff.config import UserError
from rsdiff.diffusion.schedules import ScheduleConfig
from rsdiff.methods.base import Problem
from rsdiff.networks.layers import SinusoidalEmbedding
from rsdiff.weights.keymaps.contrast import contrast_name
from rsdiff.weights.keymaps.renaming import Part, name_of_parts, ours_from_published, published_from_ours, states_of
from rsdiff.weights.lightning import plain
from rsdiff.weights.state_dicts import find_settings, find_state_dict, under

MARKER = "E.encoder_q.E.0.weight"
COPY = "diffusion.denoise_fn."
SCALE = 4
"""Scale of every published network."""
FREQUENCIES = "time_mlp.0.inv_freq"
"""A constant that files of the DDPM ablation hold."""


@dataclass(frozen=True)
class Parts:
    """The published tensors by what they belong to, prefixes removed, and the settings found beside them (plain values)."""

    restorer: Mapping[str, Tensor]
    contrast: Mapping[str, Tensor]
    unet: Mapping[str, Tensor]
    condition: Mapping[str, Tensor]
    settings: Mapping[str, Any]

    def arguments(self, network: Literal["encoder", "diffusion_model"]) -> Mapping[str, Any]:
        """Return the stored constructor arguments of a network, {} without settings."""
        stored: Mapping[str, Any] = self.settings.get(network, {}).get("args", {})
        return stored


class JointBlindKeyMap:
    """The `KeyMap` of one of the four methods; subclasses say which networks it has.

    unet_from  which copy of the U-Net is imported. The other one is not kept, so an export holds the imported weights in both places.
    """

    unet_from: Literal["model", "ema"] = "model"
    has_copy: bool = True
    """Whether the published module lists the U-Net a second time under `diffusion.denoise_fn.`."""

    def infer(self, parts: Parts) -> Any:
        """Return the config a file tells."""
        raise NotImplementedError

    def unet(self, config: Any, problem: Problem) -> nn.Module:
        """Return the U-Net of `config`."""
        raise NotImplementedError

    def networks(self, config: Any, problem: Problem) -> dict[str, nn.Module]:
        """Return our prefix -> network with the shapes of `config` (on the meta device)."""
        restorer, contrast = config.restorer.build(problem), config.contrast.build(problem.lr_bands)
        return {"restorer.": restorer, "contrast.": contrast, "unet.": self.unet(config, problem)}

    def parts(self, config: Any) -> list[Part]:
        """Return how each network is called."""
        raise NotImplementedError

    def schedule_buffers(self, schedule: ScheduleConfig) -> dict[str, Tensor]:
        """Return the buffers the published module keeps of its schedule."""
        return schedule.build().buffers()

    def from_published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors less what the published module lists twice."""
        return tensors

    def from_ours(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with what the published module lists twice."""
        return tensors

    def to_ours(self, content: Mapping[str, Any], config: Any | None) -> tuple[Any, dict[str, Tensor]]:
        """See KeyMap."""
        tensors = self.from_published(dict(find_state_dict(content, MARKER).tensors))
        settings = plain(find_settings(content, ("diffusion_model", "encoder")) or {})
        tensors = self._one_unet(tensors)
        constants = {key: tensors.pop(key) for key in list(tensors) if _is_buffer(key)}
        parts = Parts(
            restorer=under(tensors, "encoder."),
            contrast=under(tensors, "E."),
            unet=under(tensors, "model."),
            condition=under(tensors, "diffusion.rrdb."),
            settings=settings,
        )
        made = config if config is not None else self.infer(parts)
        self._check_schedule(constants, made.schedule)
        with torch.device("meta"):
            own = states_of(self.networks(made, self.problem(parts)))
        return made, ours_from_published(tensors, own, name_of_parts(*self.parts(made)), self.ignored(made))

    def to_published(self, config: Any, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See KeyMap; the U-Net stands in all its places."""
        weights = published_from_ours(state_dict, name_of_parts(*self.parts(config)))
        unet = under(weights, "model.")
        weights |= {f"ema.{key}": value for key, value in unet.items()}
        if self.has_copy:
            weights |= {COPY + key: value for key, value in unet.items()}
        buffers = {f"diffusion.{key}": value for key, value in self.schedule_buffers(config.schedule).items()}
        return self.from_ours(weights) | buffers

    def ignored(self, config: Any) -> tuple[str, ...]:
        """Return regular expressions of published names that are not taken."""
        return ()

    def problem(self, parts: Parts) -> Problem:
        """Return bands and scale of the file's networks."""
        raise NotImplementedError

    def _one_unet(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with one U-Net under `model.`; raises UserError where copies that must be equal are not."""
        copies = under(tensors, COPY)
        model, average = under(tensors, "model."), under(tensors, "ema.")
        for key, value in copies.items():
            if key not in model or not torch.equal(value, model[key]):
                raise UserError(f"the file's '{COPY}{key}' is not its 'model.{key}', of which it is a copy; the file is damaged.")
        chosen = average if self.unet_from == "ema" and average else model
        rest = {key: value for key, value in tensors.items() if not key.startswith((COPY, "model.", "ema."))}
        return rest | {f"model.{key}": value for key, value in chosen.items()}

    def _check_schedule(self, constants: Mapping[str, Tensor], schedule: ScheduleConfig) -> None:
        if not constants:
            return
        expected = self.schedule_buffers(schedule)
        for key, value in constants.items():
            ours = expected.get(key.removeprefix("diffusion."))
            if ours is None:
                raise UserError(f"the file holds '{key}', which is no part of this model's noise schedule; choose the model it belongs to.")
            if ours.shape != value.shape or not torch.allclose(ours, value.float(), rtol=1e-4, atol=1e-6):
                raise UserError(f"the file's '{key}' is not that of the schedule {schedule}; set model.schedule to the file's.")


CONTRAST = Part("contrast.", "E.", contrast_name)


def contrast_options(parts: Parts) -> dict[str, Any]:
    """Return the options of the degradation encoder that shapes and settings tell."""
    return {
        "width": parts.contrast["encoder_q.E.0.weight"].shape[0],
        "queue_size": parts.contrast["queue"].shape[1],
        "weight": float(parts.settings.get("contrast_loss_weight", 0.01 if parts.settings else 0.05)),
    }


def published_groups(parts: Parts, width: int) -> int:
    """Return the groups of the U-Net's normalisations: stored, else 32, else the most that divide its width."""
    stored = parts.arguments("diffusion_model").get("norm_groups")
    return int(stored) if stored is not None else next(groups for groups in range(min(32, width), 0, -1) if width % groups == 0)


def published_schedule(parts: Parts, otherwise: ScheduleConfig) -> ScheduleConfig:
    """Return the stored schedule (DiffBSR's `beta_schedule`, BlindSRSNF's `diffusion`), or `otherwise`."""
    stored = parts.settings.get("beta_schedule") or parts.settings.get("diffusion") or {}
    name = stored.get("schedule") or stored.get("beta_type")
    if name is None:
        return otherwise
    start = stored.get("linear_start", stored.get("beta_start", otherwise.start))
    end = stored.get("linear_end", stored.get("beta_end", otherwise.end))
    return ScheduleConfig(name=name, steps=int(stored["n_timestep"]), start=float(start), end=float(end))


def frequencies(width: int) -> Tensor:
    """Return the constant of the DDPM ablation's embedding."""
    return SinusoidalEmbedding(width).frequencies


def _is_buffer(key: str) -> bool:
    return re.fullmatch(r"diffusion\.\w+", key) is not None

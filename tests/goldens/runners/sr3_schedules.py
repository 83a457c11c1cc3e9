"""Noise schedules of SR3 and of its DDPM twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rsdiff.diffusion.schedules import BETAS, DiscreteSchedule, make_betas

from ..case import Case, runner


@runner("sr3", "schedule_linear_2000")
def schedule_linear_2000(case: Case) -> dict[str, Any]:
    config = case.config
    indices = case.arrays["indices"]  # an output by the case's words, but nothing else says which rows are stored
    betas = make_betas(config["schedule"], config["n_timestep"], config["linear_start"], config["linear_end"])
    schedule = DiscreteSchedule(betas)
    rows = {name: values[torch.from_numpy(indices)] for name, values in schedule.buffers().items()}
    signal = schedule.signal_levels[torch.from_numpy(np.append(indices, len(schedule)))]
    return rows | {"indices": indices, "sqrt_alphas_cumprod_prev_f64": signal}


@runner("sr3", "schedule_variants")
def schedule_variants(case: Case) -> dict[str, Any]:
    config = case.config
    size = (config["n_timestep"], config["linear_start"], config["linear_end"], config["cosine_s"])
    betas = {f"betas_{name}": make_betas(name, *size) for name in BETAS}
    # the twin's schedule is stated in the case's words only: linear 1e-4..2e-2, T = 2000
    twin = DiscreteSchedule(make_betas("linear", 2000, 1e-4, 2e-2)).buffers()
    indices = case.arrays["ddpm_indices"]
    rows = {f"ddpm2000_{name}": values[torch.from_numpy(indices)] for name, values in twin.items()}
    return betas | rows | {"ddpm_indices": indices}

"""Refuses combinations of settings that cannot work, before data or network is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rsdiff.config import ConfigError
from rsdiff.runs.settings import RunSettings

if TYPE_CHECKING:
    from rsdiff.methods.base import Problem

Offers = Mapping[str, Mapping[str, frozenset[str]]]
"""For each group ('dataset', 'degradation') the batch fields that each of its options gives."""

NEEDED_BY_TRAINING = frozenset({"hr", "hr_views"})
"""Batch fields that a method's `requires` may name and restoring does without."""


def check_compatible(
    settings: RunSettings, offers: Callable[[], Offers] = dict, fields: Mapping[str, frozenset[str]] | None = None
) -> None:
    """Raise ConfigError if model, data and degradation of a run do not fit together.

    offers  what the other options of these groups give, asked only when something is missing
    fields  what data set and degradation give (see `fields_given`), where that is known already
    Where the data set's options tell its bands without looking at files, the method is asked now whether it can treat them; else when it
    is built.
    """
    if not settings.task.pairs_data:
        return
    from rsdiff.degradations.grid import GridConfig  # with PyTorch, as is whatever pairs model and data
    from rsdiff.methods.base import Problem

    choices = settings.choices
    if "trainer" in settings.task.uses and settings.model.is_ready:
        raise ConfigError(f"model={choices['model']} is not trained; add task=evaluate, or task=restore with input= and output=.")
    if ("trainer" in settings.task.uses or (settings.task.reads == ("train",) and settings.task.pairs_data)) and isinstance(
        settings.degradation, GridConfig
    ):
        raise ConfigError(
            f"degradation={choices['degradation']} is a list of test sets, which cannot be trained on; train with another one and evaluate "
            "the checkpoint on the list."
        )
    require_best_metric(settings)
    trainer = settings.groups.get("trainer")
    if trainer is not None and trainer.partial and settings.checkpoint is None and settings.model.predecessor is None:
        raise ConfigError("trainer.partial=true has no effect without weights to start from; leave it out, or add checkpoint=RUN_FOLDER.")
    given = fields if fields is not None else {group: fields_given(settings.groups, group) for group in ("dataset", "degradation")}
    data = {"dataset": given["dataset"]}
    require_fields(f"degradation={choices['degradation']}", settings.degradation.requires, data, choices, offers)
    if "lr" in given["dataset"] - settings.degradation.requires:
        raise ConfigError(
            f"dataset={choices['dataset']} has LR images of its own, to which degradation={choices['degradation']} would not be applied; "
            "choose degradation=paired."
        )
    if "trainer" in settings.task.uses and settings.model.views > 1 and "lr" in given["dataset"]:
        raise ConfigError(
            f"model={choices['model']} is trained on several LR views of one degradation, and dataset={choices['dataset']} has one LR "
            "of its own; choose data without LR images, so that the degradation makes them."
        )
    requires = settings.model.requires if "trainer" in settings.task.uses else settings.model.requires - NEEDED_BY_TRAINING
    require_fields(f"model={choices['model']}", requires, given, choices, offers)
    require_kernel_size(settings)
    require_target_side(settings)
    bands: int | None = getattr(settings.dataset, "bands", None)
    if bands is not None:
        degradation = settings.degradation.for_wavelengths(getattr(settings.dataset, "wavelengths", ()))
        try:
            lr_bands = degradation.lr_bands(bands)
        except ValueError as refusal:
            raise ConfigError(f"degradation={choices['degradation']}: {refusal}") from refusal
        problem = Problem(settings.scale, bands, lr_bands)
        reason = settings.model.refuse(problem)
        if reason is not None:
            raise ConfigError(f"model={choices['model']}: {reason}")
        require_start(settings, problem)
    require_levels(settings)


def require_best_metric(settings: RunSettings) -> None:
    """Raise ConfigError where the best checkpoint is to be chosen by a metric that no validation computes."""
    trainer, metrics = settings.groups.get("trainer"), settings.groups.get("metrics")
    if trainer is None or metrics is None or trainer.best_metric is None or not trainer.validates:
        return
    computed = metrics.for_validation(trainer.best_metric).metrics
    if trainer.best_metric not in computed:
        raise ConfigError(
            f"trainer.best_metric={trainer.best_metric} is no metric that a validation can compute, which are those of single images "
            f"without a weight file; choose one (such as {', '.join(computed[:3])}), or set trainer.best_metric=null to take the last one."
        )


def require_kernel_size(settings: RunSettings) -> None:
    """Raise ConfigError where training compares kernels with those of a degradation that are of another size."""
    wanted, given = settings.model.target_kernel_size, settings.degradation.kernel_size
    if "trainer" in settings.task.uses and wanted is not None and given is not None and wanted != given:
        raise ConfigError(
            f"degradation={settings.choices['degradation']} blurs with kernels of {given} x {given} and model={settings.choices['model']} "
            f"is trained to estimate {wanted} x {wanted}; set degradation.kernel_size={wanted}, or the model's kernel_size={given}."
        )


def require_target_side(settings: RunSettings) -> None:
    """Raise ConfigError where training targets are not of the size that a discriminator is built for."""
    trainer, wanted = settings.groups.get("trainer"), settings.model.target_side
    if trainer is None or wanted is None:
        return
    crop = getattr(settings.degradation, "crop", None)
    side = round(crop * settings.scale) if crop else trainer.patch
    if side != wanted:
        option = f"degradation.crop={wanted / settings.scale:g}" if crop else f"trainer.patch={wanted}"
        raise ConfigError(
            f"model={settings.choices['model']} has a discriminator built for targets of {wanted} x {wanted}, and in training they are "
            f"{side} x {side}; set {option}, or the size of the discriminator to {side}."
        )


def require_start(settings: RunSettings, problem: Problem) -> None:
    """Raise ConfigError where the sampler begins at an image and the model has none of the right bands."""
    from rsdiff.diffusion.sampler import SamplerConfig  # with PyTorch, as is whatever pairs model and data

    sampler = settings.groups.get("sampler")
    is_at_image = isinstance(sampler, SamplerConfig) and sampler.start.startswith("image")  # a plugin's has options of its own
    if is_at_image and not settings.model.starts_at_image(problem):
        raise ConfigError(
            f"sampler={settings.choices['sampler']} begins at the enlarged LR image, and model={settings.choices['model']} cannot begin "
            f"there with {problem.lr_bands} bands for {problem.bands}; choose one that begins at noise, such as sampler=ddim."
        )


def require_levels(settings: RunSettings) -> None:
    """Raise ConfigError where the sampler asks for levels, or for a step, that the model has not."""
    from rsdiff.diffusion.sampler import SamplerConfig  # with PyTorch, as is whatever pairs model and data

    sampler, model, choice = settings.groups.get("sampler"), settings.model, f"model={settings.choices['model']}"
    if not isinstance(sampler, SamplerConfig) or not model.samples:  # a plugin's sampler has options of its own
        return
    levels = model.sampled_levels
    if levels == 0 and sampler.grid == "table":
        raise ConfigError(f"sampler.grid=table picks levels from a model's table and {choice} has none; choose grid edm, ve or vp.")
    if levels and sampler.grid in ("model", "table") and sampler.stride == 0 and sampler.steps > levels:
        raise ConfigError(f"sampler.steps={sampler.steps} was given and {choice} has {levels} levels; choose 1 to {levels} steps.")
    if sampler.solver == "native" and model.has_own_step is False:
        raise ConfigError(
            f"sampler.solver=native takes a step that the model published and {choice} has none; choose ddpm, ddim, heun or dpmpp_2m."
        )


def fields_given(groups: Mapping[str, Any], group: str) -> frozenset[str]:
    """Return the batch fields that the chosen data set, or the chosen degradation of its images, gives.

    The loader cuts hr_views from every hr; a degradation that needs hr makes lr of it.
    """
    data: frozenset[str] = groups["dataset"].gives
    if group == "dataset":
        return data | ({"hr_views"} if "hr" in data else set())
    degradation = groups["degradation"]
    fields: frozenset[str] = degradation.build().gives
    return fields | ({"lr"} if "hr" in degradation.requires & data else set())


def require_fields(
    who: str, requires: frozenset[str], given: Mapping[str, frozenset[str]], choices: Mapping[str, str], offers: Callable[[], Offers]
) -> None:
    """Raise ConfigError if `who` ('model=refdiff') requires a batch field that nothing gives.

    requires  the batch fields
    given     by group ('dataset', 'degradation'), what its chosen option gives
    choices   option chosen by group, for the message
    offers    called only when something is missing: what the other options give
    """
    everything = frozenset[str]().union(*given.values())
    missing = sorted(requires - everything)
    if not missing:
        return
    chosen = [f"{group}={choices[group]}" for group in given]
    verb = "gives" if len(chosen) == 1 else "give"
    ways = {group: options for group, options in offers().items() if group in given}
    advice = "; ".join(_advice(field, ways, choices) for field in missing)
    raise ConfigError(
        f"{who} needs {listed(missing)}, and {listed(chosen)} {verb} only {listed(sorted(everything)) or 'nothing'}: {advice}."
    )


def _advice(field: str, offers: Offers, choices: Mapping[str, str]) -> str:
    """Return what to choose for a field. An option that is chosen already and would give it was set otherwise."""
    names = {group: sorted(option for option, given in options.items() if field in given) for group, options in offers.items()}
    set_otherwise = [f"{group}={choices[group]}" for group, options in names.items() if choices.get(group) in options]
    if set_otherwise:
        return f"{field} is given by {listed(set_otherwise)} as it is by default; leave out the option of it that was changed"
    ways = [f"{group}={listed(options, 'or')}" for group, options in names.items() if options]
    return f"for {field} choose {' or '.join(ways)}" if ways else f"no option that is ready to use gives {field}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)

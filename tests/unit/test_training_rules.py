"""Learning-rate schedules, weight averages and sample orders as rules."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from rsdiff.data.order import windowed_shuffle
from rsdiff.training.checkpoints import is_better
from rsdiff.training.config import EmaConfig, LearningRateConfig, OptimiserConfig
from rsdiff.training.ema import Ema, constant, half_life
from rsdiff.training.learning_rate import learning_rate_factor
from rsdiff.training.optimisers import build_optimiser


def factors(config: LearningRateConfig, steps: list[int], total: int = 100) -> list[float]:
    return [learning_rate_factor(config, step, 10 * step, total) for step in steps]


def test_constant_with_warm_up_rises_over_its_images() -> None:
    assert factors(LearningRateConfig(warmup_images=100), [0, 5, 10, 50]) == [0, 0.5, 1, 1]


def test_multistep_drops_when_a_milestone_is_reached() -> None:
    config = LearningRateConfig(shape="multistep", milestones=(10, 20), gamma=0.5)
    assert factors(config, [0, 9, 10, 19, 20, 99]) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_multistep_takes_a_factor_per_milestone() -> None:
    config = LearningRateConfig(shape="multistep", milestones=(10, 20), gammas=(0.1, 0.5))
    assert factors(config, [0, 10, 20]) == pytest.approx([1, 0.1, 0.05])
    with pytest.raises(ValueError, match="one for each milestone"):
        LearningRateConfig(shape="multistep", milestones=(10,), gammas=(0.1, 0.5))


def test_cosine_equals_torchs() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 100, eta_min=0.1)
    published = []
    for _ in range(100):
        published.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert factors(LearningRateConfig(shape="cosine", floor=0.1), list(range(100))) == pytest.approx(published)


def test_cosine_restarts_begin_anew_at_their_own_height() -> None:
    config = LearningRateConfig(shape="cosine_restarts", periods=(10, 20), restart_weights=(1.0, 0.5), floor=0.1)
    values = factors(config, [0, 5, 10, 20, 30, 99])
    assert values == pytest.approx([1.0, 0.55, 0.1 + 0.5 * 0.9, 0.1 + 0.25 * 0.9, 0.1, 0.1])


def test_half_life_halves_the_old_weights() -> None:
    beta = half_life(1000, None)
    assert beta(0, 1000) == pytest.approx(0.5)
    assert beta(0, 10) ** 100 == pytest.approx(0.5)
    assert half_life(1000, 0.05)(0, 16) == 0.0
    assert half_life(1000, 0.05)(2000, 2100) == pytest.approx(0.5)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = self.first
        self.register_buffer("count", torch.zeros(1))


def test_averages_follow_their_rules_and_take_buffers_as_they_are() -> None:
    model = Tied()
    average = Ema(EmaConfig(rule="constant", decays=(0.5, 0.9)), model)
    start = model.first.weight.detach().clone()
    with torch.no_grad():
        model.first.weight += 1
        model.count += 3
    average.update(model, 0, 16)
    half, slow = average.weights(model)
    torch.testing.assert_close(half["first.weight"], start + 0.5)
    torch.testing.assert_close(slow["first.weight"], start + 0.1)
    assert torch.equal(half["first.weight"], half["second.weight"])
    assert half["count"].item() == 3
    model.load_state_dict(half)
    torch.testing.assert_close(model.first.weight.detach(), start + 0.5)
    assert constant(0.5)(0, 16) == 0.5


def test_averages_equal_the_weights_until_they_start() -> None:
    model = nn.Linear(1, 1)
    average = Ema(EmaConfig(rule="constant", decays=(0.5,), start_step=3), model)
    for step in range(4):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update(model, step * 8, (step + 1) * 8)
    assert average.weights(model)[0]["weight"].item() == 2.25  # steps 1 and 2 are copied (1), then (1 + 2) / 2, then (1.5 + 3) / 2


def test_averages_survive_a_round_trip_and_refuse_another_model() -> None:
    model = nn.Linear(2, 2)
    average = Ema(EmaConfig(rule="half_life", half_lives_images=(100, 200)), model)
    with torch.no_grad():
        model.weight.zero_()
    average.update(model, 100, 110)
    restored = Ema(EmaConfig(rule="half_life", half_lives_images=(100, 200)), model)
    restored.load_state_dict(average.state_dict())
    for one, other in zip(average.weights(model), restored.weights(model), strict=True):
        assert torch.equal(one["weight"], other["weight"])
    with pytest.raises(ValueError, match="differ"):
        Ema(EmaConfig(rule="constant"), model).load_state_dict(average.state_dict())


def test_ranks_share_one_endless_order() -> None:
    alone = list(itertools.islice(windowed_shuffle(11, 0, 1, seed=4), 40))
    first, second = (list(itertools.islice(windowed_shuffle(11, rank, 2, seed=4), 20)) for rank in (0, 1))
    assert [index for pair in zip(first, second, strict=True) for index in pair] == alone
    assert set(alone) == set(range(11))
    assert alone[:11] != alone[11:22]


def test_without_shuffling_the_order_is_the_data_sets() -> None:
    assert list(itertools.islice(windowed_shuffle(3, 0, 1, seed=0, shuffle=False), 7)) == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(ValueError, match="at least one sample"):
        next(windowed_shuffle(0, 0, 1, seed=0))


def test_the_best_checkpoint_is_the_one_with_the_lowest_error_or_the_highest_score() -> None:
    assert is_better("rmse", 0.1, 0.2)
    assert not is_better("rmse", 0.3, 0.2)
    assert is_better("psnr", 30, 20)
    assert not is_better("psnr", 10, 20)
    assert is_better("sam", 5, None)


def test_lion_moves_every_weight_by_the_learning_rate_and_shrinks_it_by_the_decay() -> None:
    weights = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimiser = build_optimiser(OptimiserConfig(algorithm="lion", lr=0.1, betas=(0.9, 0.99), weight_decay=0.5), [weights])
    weights.grad = torch.tensor([5.0, -1e-3, 0.0])
    optimiser.step()
    torch.testing.assert_close(weights.detach(), torch.tensor([0.95 - 0.1, -1.9 + 0.1, 2.85]))

"""The matrix of what goes with what: answers in one sentence, the table of docs/features.md, and every allowed pair does what it promises.

`make matrix` (slow, a line per model) lets every allowed (model kind, data set kind, degradation) take one training step and restore an
image with its small variant, and every small model restore with every sampler; the ordinary tests take a sample of both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from documentation.matrix import Combination, feature_table, with_features
from rsdiff.app.command_line import check_command
from rsdiff.app.diagnosis import options_of
from rsdiff.config import ConfigError
from tests.conftest import REPOSITORY
from tests.runs.pairs import CONF, MODELS, Outcome, Pair, options, outcome_of, pairs, samplers

pytestmark = pytest.mark.xdist_group("matrix")  # the options are composed once


@cache
def answers() -> Sequence[Combination]:
    """All combinations with their answers; a minute's work."""
    return list(options().combinations())


def test_the_table_of_features_is_that_of_this_version() -> None:
    text = (REPOSITORY / "docs" / "features.md").read_text()
    assert text == with_features(text, feature_table(options(), answers())), "the table of features is stale; run `make feature-table`"


def test_every_combination_runs_or_is_refused_in_one_sentence() -> None:
    sentences: dict[str, str] = {}
    allowed = total = 0
    for combination in answers():
        total += 1
        if combination.refusal is None:
            allowed += 1
        else:
            sentences.setdefault(combination.refusal, combination.model)
    assert 0 < allowed < total
    for sentence in sentences:
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence, sentence
        assert len(sentence) < 600, sentence


def test_the_command_line_gives_the_matrix_s_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = random.Random(0)
    ready_to_use = {name for name, data in options().datasets.items() if getattr(data, "root", None) != "given"}
    everything = [c for c in answers() if c.dataset in ready_to_use and c.scale in (1.0, 4.0)]
    for answer, count in ((True, 3), (False, 3)):
        for chosen in chooser.sample([c for c in everything if (c.refusal is None) == answer], count):
            sampler = chooser.choice(options_of(CONF / "sampler"))
            typed = [f"{group}={getattr(chosen, group)}" for group in ("model", "dataset", "degradation")]
            typed += [f"scale={chosen.scale:g}"] + [f"sampler={sampler}"] * options().models[chosen.model].samples
            typed += ["task=evaluate"] if options().models[chosen.model].is_ready else []
            try:
                check_command(CONF, typed, multirun=False)
                refused = False
            except ConfigError as refusal:
                # A later stage asks for its first one only where nothing else speaks against the run.
                refused = "starts from a trained" not in str(refusal)
            bands_are_known = hasattr(options().datasets[chosen.dataset], "bands")
            assert refused == (not answer) or (not bands_are_known and not refused), typed


def one_pair_of(model: str) -> Pair:
    """One pair of a model, so chosen that data kinds and degradations take turns."""
    return random.Random(model).choice(list(pairs([model])))


def failures_of(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.said for name, outcome in outcomes.items() if outcome.state == "failed"}


def test_a_pair_of_every_model_trains_a_step_and_restores() -> None:
    assert {options().kinds[name] for name in MODELS} == set(options().kinds.values()) - {"spandrel"}
    assert not failures_of({str(pair): outcome_of(pair) for pair in map(one_pair_of, MODELS)})


@pytest.mark.slow
@pytest.mark.timeout(7200, method="thread")  # signals limit the pairs
@pytest.mark.parametrize("model", MODELS)
def test_every_allowed_pair_trains_a_step_and_restores(model: str, record_property: Callable[[str, object], None]) -> None:
    outcomes = {str(pair): outcome_of(pair) for pair in pairs([model])}
    for state, count in Counter(outcome.state for outcome in outcomes.values()).items():
        record_property(f"pairs that {state}", count)
    assert not failures_of(outcomes)


@pytest.mark.slow
@pytest.mark.timeout(7200, method="thread")
@pytest.mark.parametrize("model", MODELS)
def test_every_tiny_model_restores_with_every_sampler_or_says_why_not(model: str, record_property: Callable[[str, object], None]) -> None:
    pair = one_pair_of(model)
    # In 3 steps, BlindDiff's own sampler, which clips nothing, leaves the numbers with weights of a single step.
    outcomes = {name: outcome_of(pair, sampler) for name, sampler in samplers(5).items()}
    for state, count in Counter(outcome.state for outcome in outcomes.values()).items():
        record_property(f"samplers that {state}", count)
    assert not failures_of(outcomes), str(pair)

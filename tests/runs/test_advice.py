"""What a message says to do is done here, and the next command goes on."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from rsdiff.app.command_line import check_command
from rsdiff.config import ConfigError
from tests.conftest import REPOSITORY, Command
from tests.runs.test_identity import STOP, TINY, image, images, runs_of

CONF = REPOSITORY / "conf"


@dataclass(frozen=True)
class Case:
    """A command that is refused before anything runs.

    typed   its settings
    advice  what its sentence says to type: a pattern whose first group is one setting (or several, separated by blanks)
    given   what stands for words in capitals there
    without what the sentence says to leave out: the beginning of settings typed
    """

    typed: tuple[str, ...]
    advice: str
    given: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()


def case(typed: str, advice: str, without: str = "", **given: str) -> Case:
    return Case(tuple(typed.split()), advice, tuple(given.items()), tuple(without.split()))


EQUAL = r"([\w./@]+=[^\s,;]+)"
COMPOSED = {
    "a model that needs no training": case("model=bicubic", f"add {EQUAL}", without="trainer"),
    "a rate without its milestones": case("trainer.learning_rate.shape=multistep", r"add (\S+\])", STEP="2"),
    "another rate": case(
        "trainer.learning_rate.shape=cosine_restarts", "choose another (shape)", shape="trainer.learning_rate.shape=cosine"
    ),
    "an unread option of the rate": case("trainer.learning_rate.shape=constant trainer.learning_rate.floor=0.1", f"set {EQUAL}"),
    "an unread option left out": case("trainer.ema.rule=off trainer.ema.decays=[0.9]", "(leave it out)", without="trainer.ema.decays"),
    "an option inside an unread one": case("model=liif model.swinir.window=4", f"set {EQUAL}"),
    "an option that a sampler does not read": case(
        "model=edm_sr_tiny sampler=edm sampler.churn_min=0.1", r"set (sampler.churn=NUMBER)", NUMBER="1"
    ),
    "steps beside a stride": case("model=sr3_tiny sampler=sr3_strided sampler.stride=4 sampler.steps=3", f"set {EQUAL}"),
    "a code that one of several options needs": case("model=refdiff_tiny model.unchanged_code=0.5", r"or set (model.mask=\w+)"),
    "a rule of another solver": case(
        "model=ediffsr_tiny sampler=ddim model.native_rule=ode",
        "(leave it out), or choose a sampler with sampler.solver=native",
        without="model.native",
    ),
    "an average without a decay": case("trainer.ema.rule=constant trainer.ema.decays=[]", "(leave it out)", without="trainer.ema.decays"),
    "a metric that no validation computes": case("trainer.best_metric=lpips_alex", f"set {EQUAL}"),
    "an early stop without validations": case(
        "trainer.patience=2 trainer.validate_every_steps=0", "(leave it out)", without="trainer.patience"
    ),
    "the best of no validations": case("trainer.best_metric=ssim trainer.validate_every_steps=0", "(leave it out)", without="trainer.best"),
    "weights in part of none": case("trainer.partial=true", "(leave it out)", without="trainer.partial"),
    "a sun of no second date": case("dataset.second_date=false dataset.illumination=0.5", f"set {EQUAL}"),
    "a metric that is not computed": case("metrics.seam_interval=32", r"set (metrics\.metrics=\S+\])"),
    "a protocol's part of it": case("metrics.metrics=[ssim] metrics.protocol.epsilon=1e-8", r"set (metrics\.metrics=\S+\])"),
    "a range said twice": case("dataset=folder dataset.root=x dataset.range=sentinel2 dataset.normaliser.rule=maximum", f"set {EQUAL}"),
    "names beside a fraction": case("dataset=folder dataset.root=x dataset.split=fraction dataset.test_pattern=a*", f"set {EQUAL}"),
    "batch=auto": case("trainer.batch=auto", rf"or {EQUAL}", without="trainer.batch"),
    "scales in the wrong order": case("trainer.scale_range=[4,2]", "(give the lowest scale first)", without="trainer.scale_range"),
    "a word for a list": case("metrics.metrics=psnr", "write a list: (.*)[.]"),
    "a removed setting": case("~trainer.steps", f"give {EQUAL}", without="~", VALUE="3"),
    "a removed group": case("~trainer", f"choose {EQUAL}", without="~", NAME="minimal"),
    "an option of a removed group": case("~trainer trainer.patch=32", "removes; (leave one of the two out)", without="~"),
    "None": case("trainer.clip_norm=None", "write ([^,]*),", without="trainer.clip_norm"),
    "a value with blanks": Case(("outputs=(a b",), r"special characters: (.*)\.", without=("outputs",)),
    "a list without -m": case("seed=1,2", "add (-m)"),
    "an option of another group": case("trainer.lr=1e-3", r"did you mean ([\w.]+)\?", without="trainer.lr"),
    "a misspelt group": case("modell=rrdb_tiny", r"did you mean (\w+)\?", without="modell"),
    "a misspelt choice": case("model=rrdb_tny", r"did you mean (\w+)\?", without="model"),
    "a sampler that begins at an image": case(
        "model=flow_tiny dataset.bands=12 degradation=bands degradation.bands=[1,5] sampler=from_lr", f"such as {EQUAL}"
    ),
    "a reference that the data lack": case("model=refdiff_tiny dataset.second_date=false", "(leave out)", without="dataset.second"),
    "LR that the data bring": case("dataset=paired dataset.root=x degradation=iso", "choose (degradation=paired)"),
    "degradations of a grid": case("degradation=diffbsr_test", "train with (another) one", another="degradation=iso"),
    "task without its checkpoint": case("task=export", f"add {EQUAL}", RUN_FOLDER="x"),
}


def followed(message: str, wanted: Case) -> list[str]:
    """Return the command that the sentence asks for."""
    found = re.search(wanted.advice, message)
    assert found, message
    advice = found[1].rstrip(".")
    for word, value in wanted.given:
        advice = advice.replace(word, value)
    kept = [word for word in wanted.typed if not (wanted.without and word.startswith(wanted.without))]
    if "=" in advice:
        key = advice.partition("=")[0]
        kept = [word for word in kept if word.partition("=")[0] != key] + [advice.replace(",..", "")]
    return kept


@pytest.mark.parametrize("name", COMPOSED)
def test_a_refused_command_is_accepted_as_its_sentence_says(name: str) -> None:
    wanted = COMPOSED[name]
    usual = ["model=rrdb_tiny"]
    with pytest.raises(ConfigError) as refused:
        check_command(CONF, [*usual, *wanted.typed], multirun=False)
    again = followed(str(refused.value), wanted)
    check_command(CONF, [*usual, *again], multirun="-m" in str(refused.value))


@pytest.mark.slow
def test_advice_about_runs_that_are_there(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data")
    train = [*TINY, "dataset.root=data", "outputs=o"]
    assert run_command(*train).code == 0
    (run,) = runs_of(tmp_path / "o")

    def refused(*words: str) -> str:
        ended = run_command(*words)
        assert ended.code in (1, 2), ended.out
        return ended.err

    def goes_on(*words: str) -> str:
        ended = run_command(*words)
        assert ended.code == 0, ended.err
        return ended.out

    # a run in a folder that holds another
    here = [*train, "hydra.run.dir=mine", "trainer.steps=1"]
    goes_on(*here)
    assert "choose another folder" in refused(*here, "seed=5")
    goes_on(*here[:-2], "hydra.run.dir=other", "trainer.steps=1", "seed=5")
    assert "or delete that" in refused(*here, "seed=6")
    shutil.rmtree(tmp_path / "mine")
    goes_on(*here, "seed=6")
    # a status that cannot be read, in a run beside the one asked for, and in itself
    (run / "status.json").write_text("{")
    said = refused(*train, "seed=7")
    shown = Path(re.search(r"(\S+status\.json) cannot be read; delete it", said)[1])  # type: ignore[index]
    (tmp_path / shown).unlink()
    goes_on(*train, STOP.replace("1e-9", "9"))
    # a training that cannot be extended
    longer = [*train, "trainer.steps=5"]
    assert "trainer.steps" in refused(*train, "seed=8", f"trainer.extend={run.name}")
    assert "leave trainer.extend out" in refused(*longer, "trainer.extend=ffff")
    other = refused(*longer, f"trainer.extend={run.name}", "trainer.optimiser.algorithm=lion")
    assert "choose that" in other or "checkpoint=" in other
    goes_on(*longer, f"checkpoint={run.name}", "trainer.optimiser.algorithm=lion")
    # other bands
    images(tmp_path / "grey")
    narrow = [*train, "dataset.root=grey", "dataset.take_bands=[1]", f"checkpoint={run.name}"]
    assert "trainer.partial=true" in refused(*narrow)
    goes_on(*narrow, "trainer.partial=true")
    # already finished
    said = goes_on(*train)
    shutil.rmtree(tmp_path / re.search(r"Delete (\S+) to run it again", said)[1])  # type: ignore[index]
    assert "already finished" not in goes_on(*train)


def test_advice_of_publishing_is_followed_sentence_by_sentence(run_command: Command, tmp_path: Path) -> None:
    images(tmp_path / "data")
    assert run_command(*TINY, "dataset.root=data", "outputs=o").code == 0
    (run,) = runs_of(tmp_path / "o")
    command, said = ["task=publish", "outputs=o"], []
    answers = {"RUN_FOLDER": str(run), "FOLDER": "published", "[EVALUATION_RUN,..]": f"[{run}]", "[VALUE,..]": "[Words]", "VALUE": "Words"}
    while (ended := run_command(*command)).code:
        found = re.search(r"(?:add|set it with) ([\w.]+=\S+)", ended.err)
        assert found, ended.err
        word = found[1].rstrip(".,;")
        for name, value in answers.items():
            word = word.replace(name, value)
        assert word not in said, f"{word} was typed and is advised again: {ended.err}"
        said.append(word)
        command.append(word)
    next_command = re.search(r"next +python run.py (.*)", ended.out)
    assert next_command
    image(tmp_path / "IMAGE.png", 1)
    words = next_command[1].replace("IMAGE", "IMAGE.png").split()
    ended = run_command(*words, "outputs=o")
    assert ended.code == 0, ended.err

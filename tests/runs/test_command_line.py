"""What a user types and what comes of it: choices, mistakes, sweeps, repeated commands. The components are toys (tests/toy.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Command


def folders(task: str = "toy") -> list[Path]:
    return sorted(path.parent for path in Path("outputs", task).glob("*/*/status.json"))


def status(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "status.json").read_text())
    return content


def test_a_run_leaves_its_settings_history_and_origin_in_its_folder(toys: Command) -> None:
    ended = toys("model.width=32")
    assert ended.code == 0, ended.err
    (folder,) = folders()
    assert folder.parent.name == "toy-toy"
    assert f"Report: {folder / 'report.txt'}" in ended.out
    assert "width: 32" in (folder / "config.yaml").read_text()
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3
    origin = json.loads((folder / "provenance.jsonl").read_text())
    assert origin["command"] == ["run.py", "model.width=32"]
    assert "torch" in origin["packages"]
    assert status(folder)["state"] == "finished"
    assert [path.name for path in Path("outputs").iterdir()] == ["toy"]


def cells_of(table: Path) -> list[str]:
    """All cells of a table in Markdown."""
    return [cell.strip() for line in table.read_text().splitlines() for cell in line.split("|")]


def test_the_same_command_again_reports_the_finished_run(toys: Command) -> None:
    toys("seed=1")
    again = toys("seed=1")
    assert again.code == 0
    assert again.out.startswith(f"already finished: {folders()[0] / 'report.txt'}")
    assert len(folders()) == 1
    (folders()[0] / "report.txt").unlink()
    assert "report.txt is gone; it is made again" in toys("seed=1").out
    assert (folders()[0] / "report.txt").exists()


def test_settings_that_cannot_change_the_result_lead_to_the_same_run(toys: Command) -> None:
    toys("scale=4")
    for same in ("scale=4.0", "dataset.workers=7", "trainer.workers=3", "metrics.names=[ssim]", "model=toy", "hydra/launcher=joblib"):
        assert "already finished" in toys(same).out, same
    assert len(folders()) == 1
    toys("scale=2")
    assert len(folders()) == 2


def test_a_model_brings_its_sampler_and_the_command_line_wins_over_it(toys: Command) -> None:
    assert "steps: 50" in toys("--cfg", "job", "--package", "sampler").out
    assert "steps: 5\n" in toys("--cfg", "job", "--package", "sampler", "sampler=fast").out


def test_an_experiment_overrides_groups_and_single_values(toys: Command) -> None:
    composed = toys("--cfg", "job", "experiments=paper/wide").out
    assert "width: 64" in composed
    assert "references: true" in composed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["modle=toy"], "modle is not a setting (did you mean model?)"),
        (
            ["model=toi"],
            "model=toi does not exist (did you mean toy?); the options of model are broken, misspelt, referenced, toy, toy_tiny.",
        ),
        (["model.dropot=1"], "model.dropot is not a setting (did you mean model.dropout?); the options of model are block,"),
        (["+model.dropot=1"], "model.dropot is not an option (did you mean dropout?)"),
        (["dataset.root=here"], "dataset.root is not a setting (it is one of dataset=required); the options of dataset are bands,"),
        (["dropout=1"], "dropout is not a setting (did you mean model.dropout?)"),
        (
            ["model.block.dept=1"],
            "model.block.dept is not a setting (did you mean model.block.depth?); the options of model.block are depth.",
        ),
        (["model=misspelt"], "model.block.dpth is not an option (did you mean depth?); the options of model.block are depth."),
        (["+speed=1"], "speed is not an option"),
        (["model.width=wide"], "model.width='wide' is not accepted"),
        (["scale=abc"], "scale='abc' is not accepted: it needs a number."),
        (["scale=-1"], "error: scale=-1 was given"),
        (["checkpoint="], "checkpoint= is empty; give a path, or leave checkpoint= out."),
        (["trainer.optimiser=adam"], "it needs options of its own: trainer.optimiser."),
        (["--multirn", "seed=1,2"], "--multirn is not a flag (did you mean --multirun?)"),
        (["task.data=[AID (research)]"], """task.data='["AID (research)"]'."""),
        (["seed=null"], "seed=null is not accepted: it needs a whole number; leave seed= out for the default."),
        (["model.mode=resdual"], "model.mode=resdual is not one of plain, residual (did you mean residual?)."),
        (["trainer.steps=0"], "trainer: steps is 0; it must be at least 1."),
        (["model=broken"], "broken.yaml, line"),
        (["dataset=dangling"], "no_such_key"),
        (["dataset=required"], "dataset.root is required and was not given; set it with dataset.root=VALUE."),
        (["model"], "'model' cannot be read as a setting"),
        (["model", "=", "toy"], "'model = toy' is not a setting; type model=toy, without spaces."),
        (["model", "=toy"], "'model =toy' is not a setting; type model=toy, without spaces."),
        (["trainer.steps", "1"], "'trainer.steps 1' is not a setting; type trainer.steps=1, with an equals sign and without spaces."),
        (["slow", "scale=2"], "'slow' is not a setting; type sampler=slow."),
        (["repository"], "'repository' is a path, and not said what for; type input=repository,"),
        (["task=restore", "photo.png", "photo_x4.png"], "'photo.png' is a path, and not said what for; type input=photo.png,"),
        (["dataset=repository"], "dataset=repository is a folder and no option; type dataset=folder dataset.root=repository."),
        (["--lr", "1e-4"], "--lr is not a flag; type trainer.optimiser.lr=RATE."),
        (["--batch-size=4"], "--batch-size=4 is not a flag; type trainer.batch=IMAGES."),
        (
            ["--config", "conf/config.yaml"],
            "--config is the beginning of several flags; choose one of --config-dir, --config-name, --config-path.",
        ),
        (["help"], "'help' is not a setting; type --help."),
        (["device=cuda"], "device is not a setting; a GPU is used where PyTorch sees one,"),
        (["metrics=psnr"], "metrics=psnr is a metric and no protocol; type 'metrics.metrics=[psnr]'."),
        (["trainer.batch_size=4"], "trainer.batch_size is not a setting; type trainer.batch=IMAGES."),
        (["seed=1,2"], "seed=1,2 gives several values; add -m"),
        (["experiments=paper/wild"], "experiments=paper/wild does not exist (did you mean paper/wide?)"),
        (["experiments=wide/paper"], "experiments=wide/paper does not exist (did you mean paper/wide?)"),
        (["hydra/launcher=jobllib"], "hydra/launcher=jobllib does not exist (did you mean joblib?)"),
        (
            ["model=referenced"],
            "model=referenced needs ref, and dataset=toy and degradation=toy give only hr, hr_views, lr and lr_clean: for ref",
        ),
        (["scale=0.5"], "model=toy: scale 0.5 is below 1; choose scale=1 or more."),
        (["checkpoint=nowhere"], "checkpoint nowhere does not exist"),
        (["-m", "model=toy,toi"], "model=toi does not exist"),
        (["-m", "model.width=1,wide"], "model.width='wide' is not accepted"),
        (["-m", "seed=0,1", "model=toy,referenced"], "model=referenced needs ref"),
    ],
)
def test_a_mistake_ends_in_one_sentence_before_anything_runs(toys: Command, arguments: list[str], sentence: str) -> None:
    ended = toys(*arguments)
    assert sentence in ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert ended.code == (1 if arguments == ["checkpoint=nowhere"] else 2)
    assert ended.out == ""
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            "defaults: [{override /model: toi}, _self_]",
            "the file of experiments=mine chooses model=toi, which does not exist (did you mean toy?)",
        ),
        ("model: {widht: 3}", "experiments=mine: model.widht is not an option (did you mean width?)"),
        ("model: {width: wide}", "experiments=mine: model.width='wide' is not accepted: it needs a whole number."),
        ("model:\n\twidth: 3", "mine.yaml, line 3, column 1 is not valid YAML: a tab stands where YAML takes spaces only."),
        ("model:\n  width: 3\n needs_ref: true", "mine.yaml, line 4, column 2 is not valid YAML: "),
    ],
)
def test_a_mistake_in_a_file_of_the_users_own_names_the_file(toys: Command, tmp_path: Path, lines: str, sentence: str) -> None:
    (tmp_path / "own/experiments").mkdir(parents=True)
    (tmp_path / "own/experiments/mine.yaml").write_text(f"# @package _global_\n{lines}\n")
    ended = toys("--config-dir", "own", "experiments=mine")
    assert sentence in ended.err
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert not Path("outputs").exists()
    (tmp_path / "own/experiments/mine.yaml").write_text("defaults: [{override /model: toy}, _self_]\n")
    assert "experiments=mine lacks the line '# @package _global_'" in toys("--config-dir", "own", "experiments=mine").err
    assert "--config-dir owm is no folder" in toys("--config-dir", "owm", "experiments=mine").err


def test_a_missing_field_names_the_options_that_give_it(toys: Command) -> None:
    assert "for ref choose dataset=pairs." in toys("model=referenced").err
    assert toys("model=referenced", "dataset=pairs").code == 0


def test_names_of_the_users_choice_are_added_with_a_plus(toys: Command) -> None:
    assert "write +model.branches.left" in toys("model.branches.left={depth: 3}").err.replace(".depth", "")
    assert toys("+model.branches.left={depth: 3}").code == 0


@pytest.mark.parametrize(
    ("end", "code", "state", "sentence"),
    [
        ("disk_full", 1, "failed", "weights.safetensors: the disk is full"),
        ("bug", 1, "failed", "KeyError: 'nowhere'"),
        ("interrupt", 130, "interrupted", "interrupted; the same command continues"),
    ],
)
def test_a_failed_run_says_why_and_keeps_the_reason(toys: Command, end: str, code: int, state: str, sentence: str) -> None:
    ended = toys(f"task.end={end}")
    assert ended.code == code
    assert sentence in ended.err
    assert ended.err.count("\n") == (2 if end == "bug" else 1)
    (folder,) = folders()
    assert status(folder)["state"] == state
    assert sentence in str(status(folder)["error"])
    log = (folder / "run.log").read_text()
    assert sentence in log
    assert ("Traceback" in log) == (state == "failed")
    assert (str(folder / "run.log") in ended.err) == (end == "bug")


def test_a_run_that_its_settings_do_not_let_begin_leaves_nothing(toys: Command) -> None:
    ended = toys("task.end=value_error")
    assert (ended.code, ended.err) == (2, "error: the toy task was told to fail; do not tell it so.\n")
    assert not Path("outputs").exists()


def test_tracebacks_are_for_those_who_ask(toys: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RSDIFF_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["run.py", "task.end=bug"])
    from rsdiff.app.main import main

    with pytest.raises(KeyError):
        main(tmp_path / "repository")


def test_a_folder_that_cannot_be_made_is_named(toys: Command) -> None:
    Path("taken").write_text("a file, not a folder")
    ended = toys("outputs=taken")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "taken" in ended.err


def test_a_sweep_ends_with_one_table_and_repeats_nothing(toys: Command) -> None:
    ended = toys("-m", "scale=2,4", "model=toy,toy_tiny")
    assert ended.code == 0, ended.err
    assert len(folders()) == 4
    (table,) = Path("outputs", "sweeps").glob("*/summary.md")
    rows = table.read_text().splitlines()
    assert [cell.strip() for cell in rows[0].split("|")] == ["", "run", "scale", "model", "state", "psnr", "folder", ""]
    assert len(rows) == 6
    assert (table.parent / "summary.csv").exists()
    assert "<td>toy_tiny</td>" in (table.parent / "summary.html").read_text()
    assert "4 of 4 runs finished" in ended.out
    again = toys("-m", "scale=2,4", "model=toy,toy_tiny")
    assert again.out.count("already finished") == 4
    assert len(list(Path("outputs", "sweeps").iterdir())) == 1


def test_a_sweep_goes_on_when_a_run_fails_and_says_so_at_the_end(toys: Command) -> None:
    ended = toys("-m", "task.end=disk_full,well", "seed=0,1")
    assert ended.code == 1
    assert "2 of 4 runs finished" in ended.out
    (table,) = Path("outputs", "sweeps").glob("*/summary.md")
    assert cells_of(table).count("failed") == 2


def test_a_sweep_ends_at_its_first_failure_when_asked(toys: Command) -> None:
    ended = toys("-m", "task.end=well,disk_full", "seed=0,1,2", "stop_on_failure=true")
    assert ended.code == 1
    assert "the disk is full" in ended.err
    (table,) = Path("outputs", "sweeps").glob("*/summary.md")
    assert [cells_of(table).count(state) for state in ("finished", "failed", "waiting")] == [3, 1, 2]


def test_a_sweep_file_is_a_sweep_without_m(toys: Command) -> None:
    assert "2 of 2 runs finished" in toys("sweeps=two").out


def keep_checkpoint(run: Path, choices: dict[str, str]) -> None:
    """Give a finished run a checkpoint without weights."""
    store = run / "checkpoints" / "step_00000001"
    store.mkdir(parents=True)
    (store / "card.json").write_text(json.dumps({"config": _yaml(run / "config.yaml"), "choices": choices}))
    for name in ("weights.safetensors", "training_state.pt"):
        (store / name).touch()


def test_a_checkpoint_brings_its_own_settings_and_typed_ones_win(toys: Command) -> None:
    toys("model=toy_tiny", "dataset=pairs", "sampler.steps=7", "scale=2")
    (first,) = folders()
    keep_checkpoint(first, {"model": "toy_tiny", "dataset": "pairs"})
    assert toys(f"checkpoint={first}", "dataset=toy", "dataset.size=8", "model.width=3").code == 0
    (second,) = [folder for folder in folders() if folder != first]
    settings = _yaml(second / "config.yaml")
    assert second.parent.name == "toy_tiny-toy"
    assert settings["model"]["width"] == 3
    assert (settings["scale"], settings["sampler"]["steps"], settings["dataset"]["size"]) == (2, 7, 8)


def test_options_are_those_of_what_the_checkpoint_brings(toys: Command) -> None:
    toys("dataset=required", "dataset.root=here")
    (first,) = folders()
    keep_checkpoint(first, {"dataset": "required"})
    assert "dataset.root is not a setting" in toys("dataset.root=there").err
    assert toys(f"checkpoint={first}", "dataset.root=there").code == 0
    (second,) = [folder for folder in folders() if folder != first]
    assert _yaml(second / "config.yaml")["dataset"]["root"] == "there"
    assert "did you mean root?" in toys(f"checkpoint={first}", "dataset.rot=there").err


def test_data_with_their_own_lr_are_not_degraded_as_the_checkpoints_were(toys: Command) -> None:
    toys("model=toy_tiny", "degradation.resize=pillow")
    (first,) = folders()
    keep_checkpoint(first, {})
    for data, kind in (("pairs", "toy"), ("inputs", "paired")):
        assert toys(f"checkpoint={first}", f"dataset={data}").code == 0
        (made,) = [folder for folder in folders() if folder.parent.name.endswith(f"-{data}")]
        assert _yaml(made / "config.yaml")["degradation"]["kind"] == kind


@pytest.mark.slow  # three processes start PyTorch
def test_a_sweep_is_the_same_in_parallel(tmp_path: Path) -> None:
    command = "task=evaluate model=bicubic dataset.size=32 dataset.test_images=1 metrics.metrics=[psnr] seed=0,1 hydra/launcher=joblib -m"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, REPOSITORY / "run.py", *command.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "2 of 2 runs finished" in ended.stdout
    assert len(list((tmp_path / "outputs" / "evaluate").glob("*/*/report.html"))) == 2


def test_help_lists_groups_options_and_what_they_mean(toys: Command) -> None:
    general = toys("--help")
    assert general.code == 0
    assert "toy_tiny" in general.out
    assert "paper/wide" in general.out
    assert "seed=0: Seed of all random choices." in general.out
    chosen = toys("model=toy_tiny", "--help")
    assert "model.width=4: Channels." in chosen.out
    assert "model.block.depth=2: Layers." in chosen.out
    assert "dataset.root=???: Folder." in toys("dataset=required", "--help").out  # also of what cannot run like this


def test_two_processes_cannot_work_on_one_run(toys: Command, tmp_path: Path) -> None:
    script = (
        "import sys, pytest; from pathlib import Path; from tests import toy; from rsdiff.app.main import main;"
        "toy.register(pytest.MonkeyPatch()); main(Path('repository'))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
    first = subprocess.Popen(
        [sys.executable, "-c", script, "task.end=sleep"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        while not folders() or status(folders()[0])["state"] != "running":
            assert first.poll() is None, first.stderr and first.stderr.read()
        ended = toys("task.end=sleep")
        assert ended.code == 1
        assert f"is being worked on by process {first.pid} on " in ended.err
    finally:
        first.terminate()
        error = first.communicate()[1]
    assert first.returncode == 75, error
    assert status(folders()[0])["state"] == "interrupted"


def _yaml(path: Path) -> dict[str, dict[str, object]]:
    import yaml

    content: dict[str, dict[str, object]] = yaml.safe_load(path.read_text())
    return content

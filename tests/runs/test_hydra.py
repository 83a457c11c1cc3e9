"""What Hydra's manual says works: its flags, its grammar, its folders, its plugins. The components are toys (tests/toy.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rsdiff.config import ConfigError, config_from_mapping
from tests.conftest import REPOSITORY, Command
from tests.runs.test_command_line import folders, status
from tests.toy import ToyMetrics

PROCESS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from rsdiff.app.main import main

ended, commands, answer, slow = [], json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
for words in commands:
    sys.argv = ["rsdiff", *words]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    ended.append([code or 0, out.getvalue(), err.getvalue(), [name for name in slow if name in sys.modules]])
with open(answer, "w") as file:  # processes of launchers print, too
    json.dump(ended, file)
"""
SLOW = [
    "torch",
    "scipy",
    "matplotlib",
    "pandas",
    "rasterio",
    "h5py",
    "accelerate",
    "torchmetrics",
    "rich",
    "jinja2",
    "torch._dynamo",
    "sympy",
]
"""Packages that take long to import."""


def type_commands(where: Path, *commands: list[str], **variables: str) -> list[tuple[int, str, str, list[str]]]:
    """Do commands one after the other in a fresh process with the shipped configs.

    Returns for each of them its exit code, what it printed, its errors, and which of the packages SLOW were imported by then.
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", **variables}
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, json.dumps(commands), "answer.json", *SLOW],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [tuple(entry) for entry in json.loads((where / "answer.json").read_text())]


def test_a_command_imports_what_it_needs(tmp_path: Path) -> None:
    completion = {"COMP_LINE": "run.py model=sr3_t", "COMP_POINT": "18", "RSDIFF_CACHE": str(tmp_path / "cache")}
    shown = [["--cfg", "job", "--resolve"], ["--cfg", "hydra"], ["--info", "config"], ["--info", "defaults"], ["task=board"]]
    run = tmp_path / "outputs" / "train" / "rrdb-whu" / "0123456789"
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": "finished", "summary": {"psnr": 20.0}, "updated": "2026-01-01 00:00:00"}))
    *made, board = type_commands(tmp_path, *shown, **completion)  # the first command of an installation imports the config classes
    assert board[0] == 0, board[2]
    general, looked, path, listed, *again, board = type_commands(
        tmp_path, ["--help"], ["task=status"], ["--info", "searchpath"], ["-sc", "query=bash"], *shown, **completion
    )
    assert general[0] == 0
    assert "model=NAME is the published configuration" in general[1]
    assert looked[0] == 1
    assert "holds no sweep" in looked[2]
    assert "rsdiff://" in path[1]
    assert "model=sr3_tiny" in listed[1]
    assert [ended[:3] for ended in again] == [ended[:3] for ended in made]
    assert not again[-1][3]
    assert board[0] == 0
    assert board[3] == ["jinja2"]  # which writes the page


def test_own_configs_are_found_where_hydra_finds_them(tmp_path: Path) -> None:
    (tmp_path / "own" / "dataset").mkdir(parents=True)
    (tmp_path / "own" / "dataset" / "mine.yaml").write_text("defaults: [folder, _self_]\nroot: ${oc.env:MY_DATA}\n")
    (tmp_path / "own" / "half.yaml").write_text("defaults: [config, _self_]\nseed: 7\n")
    shown = ["--cfg", "job", "--package"]
    directory, search, name, resolved, unset, refused, helped = type_commands(
        tmp_path,
        ["--config-dir", "own", *shown, "dataset", "dataset=mine"],
        [*shown, "dataset", "dataset=mine", f"hydra.searchpath=[file://{tmp_path}/own]"],
        ["-cd", "own", "-cn", "half", *shown, "seed"],
        ["-cd", "own", "dataset=mine", "--resolve", *shown, "scale"],
        ["-cd", "own", "dataset=mine"],
        ["-cd", "own", "dataset=mone"],
        ["-cd", "own", "dataset=mine", "--help"],
    )
    assert [directory[0], search[0], name[0], resolved[0]] == [0, 0, 0, 0], (directory, search, name, resolved)
    assert "MY_DATA" in directory[1]
    assert directory[1] == search[1]
    assert name[1] == "7\n"
    assert "did you mean mine?" in refused[2]
    assert "dataset=mine" in helped[1] + helped[2]
    assert "dataset.root takes its value from the environment variable MY_DATA" in unset[2]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["~logger"], "needs a logger and ~logger leaves none; choose logger=NAME."),
        (["~sampler"], "needs a sampler and ~sampler leaves none; choose sampler=NAME."),
        (["model=null"], "model=null names no option; choose model=NAME, or ~model where the task needs none."),
        (["~trainer.steps"], "~trainer.steps would remove a setting that has to have a value; give trainer.steps=VALUE instead."),
        (["~seed"], "~seed would remove a setting that has to have a value"),
        (["trainer.steps=None"], "trainer.steps=None gives the text 'None'; for no value write trainer.steps=null,"),
        (["dataset.size=${oc.env:NO_SUCH_VARIABLE}"], "dataset.size takes its value from the environment variable NO_SUCH_VARIABLE"),
        (["scale=${nope.x}"], "scale cannot be resolved"),
        (["trainer.lr=1"], "did you mean trainer.optimiser.lr?"),
        (["-m", "model.width=interval(1,2)"], "a sweeper such as hydra/sweeper=optuna"),
        (["-m", "hydra/sweeper=optuna"], "hydra/sweeper=optuna"),
        (["--cfg", "jobs"], "--cfg jobs does not exist (did you mean job?)"),
        (["seed=1", "--info", "plugin"], "--info plugin does not exist (did you mean plugins?)"),
        (["--config-path", "own"], "give --config-dir"),
        (["SEED=3"], "did you mean seed?"),
        (["seed:3"], "write seed=3, without spaces"),
        (["=3"], "a setting without a name"),
        (["dataset/size=3"], "did you mean dataset.size?"),
        (["model.names=[a"], "a bracket is not closed"),
        (["-m", "model=glob(no_such_*)"], "model=glob(no_such_*) stands for no value"),
        (["hydra.run.dir="], "hydra.run.dir= is empty"),
        (["hydra.job.env_copy=[NO_SUCH_VARIABLE]"], "hydra.job.env_copy names the environment variable NO_SUCH_VARIABLE"),
        (["outputs=o/${hydra.job.name}"], "read with a colon, ${hydra:job.name}"),
        (["plugins=[no_such_module]"], "plugins=[no_such_module] names the module no_such_module, which cannot be imported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_by_its_name(toys: Command, words: list[str], sentence: str) -> None:
    ended = toys(*words)
    assert sentence in ended.err
    assert ended.code == 2
    assert not Path("outputs").exists()


def test_of_a_repeated_setting_the_last_counts_and_lists_are_written_in_brackets(toys: Command) -> None:
    assert toys("seed=1", "model=toy", "seed=2", "model=toy_tiny").code == 0
    (folder,) = folders()
    assert folder.parent.name == "toy_tiny-toy"
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 2
    with pytest.raises(ConfigError, match=r"write a list: metrics.names=\[psnr\]"):
        config_from_mapping(ToyMetrics, {"names": "psnr"}, "metrics")


def test_lists_of_values_are_those_of_hydra(toys: Command) -> None:
    ended = toys("model.width=4", "-m", "model=glob(toy_*)", "seed=range(0,2)", "dataset.size=choice(8,16)", "model.width=8", "seed=5,6")
    assert ended.code == 0, ended.err
    (sweep,) = Path("outputs", "sweeps").iterdir()
    cells = json.loads((sweep / "sweep.json").read_text())["cells"]
    assert len(cells) == len(list(Path("repository/conf/model").glob("toy_*"))) * 2 * 2
    assert all("model.width=8" in cell and "model.width=4" not in cell for cell in cells)
    assert {word for cell in cells for word in cell if word.startswith("seed=")} == {"seed=5", "seed=6"}


def test_folders_are_where_hydra_is_told_to_put_them(toys: Command, tmp_path: Path) -> None:
    assert toys("hydra.run.dir=here/one").code == 0
    assert status(Path("here/one"))["state"] == "finished"
    assert not folders()
    assert "already finished" in toys("hydra.run.dir=here/one").out
    assert "holds another run" in toys("hydra.run.dir=here/one", "seed=3").err

    ended = toys("-m", "seed=1,2", "hydra.sweep.dir=there")
    assert ended.code == 0, ended.err
    assert "2 of 2 runs finished" in ended.out
    assert (tmp_path / "there" / "summary.csv").exists()
    assert not Path("outputs/sweeps").exists()

    ended = toys("-m", "seed=1,2", "hydra.sweep.dir=é, x/${now:%Y}", "hydra.sweep.subdir=ä ${hydra.job.num}")
    assert ended.code == 0, ended.err
    assert len(list(Path("é, x").glob("2*/ä [01]/status.json"))) == 2
    assert toys("seed=4", "hydra.run.dir=here/${hydra:job.name}/${seed}", "plugins=[]", "--run").code == 0
    assert [path.parent.name for path in Path("here").glob("*/*/status.json")] == ["4"]
    assert all("Config search path" in toys(*words).out for words in (("seed=1", "--info"), ("--info", "seed=1")))

    before = set(folders())
    ended = toys("hydra.job.chdir=true", "hydra/job_logging=default", "seed=9")
    assert ended.code == 0, ended.err
    assert len(set(folders()) - before) == 1
    assert list(Path("outputs").glob("*.log"))


SEARCH = """
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


class Climber(Sweeper):
    def __init__(self, key):
        self.key = key

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        best, value = None, 1
        for number in range(3):
            (job,) = self.launcher.launch([[*arguments, f"{self.key}={value}"]], initial_job_idx=number)
            best, value = (job.return_value, value + 1) if best is None or job.return_value > best else (best, value + 10)
        print("best", best)


ConfigStore.instance().store(group="hydra/sweeper", name="climber", node={"_target_": __name__ + ".Climber", "key": "seed"})
"""


@pytest.mark.slow  # three evaluations in a process of their own
def test_a_sweeper_that_chooses_as_it_goes_gets_the_figure_of_every_run(tmp_path: Path) -> None:
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "climber.py").write_text(SEARCH)
    start = [
        "-m",
        "hydra/sweeper=climber",
        "model=bicubic",
        "task=evaluate",
        "dataset.size=32",
        "metrics.metrics=[psnr,ssim]",
        "optimise=ssim",
    ]
    place = f"{REPOSITORY / 'src'}{os.pathsep}{tmp_path}"
    searched, shown = type_commands(tmp_path, start, ["task=status"], PYTHONPATH=place)
    assert searched[0] == 0, searched
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    figures = [json.loads(path.read_text())["summary"]["ssim"] for path in sorted(sweep.glob("run_*.json"))]
    assert len(figures) == 3
    assert f"best {max(figures)}" in searched[1]
    assert "3 of 3 runs finished" in searched[1]
    assert "3 runs, 3 finished" in shown[1]


NAMES = [
    "a b",
    "übü",
    "中文",
    "x=1",
    "a,b",
    "#1",
    "[x]",
    "(c)",
    "it's",
    'say "hi"',
    "2024",
    "null value",
    "${x}",
    "{y}",
    "back\\slash",
    "ends\\",
]


def test_paths_are_taken_as_the_shell_gives_them(toys: Command) -> None:
    from rsdiff.app.command_line import check_run, composing
    from rsdiff.app.words import for_hydra, words_of

    for name in NAMES:
        Path(name).mkdir()
    with composing(Path("repository/conf").resolve()):
        for name in NAMES:
            words = words_of([f"dataset.root={name}", "dataset=required", f"output={name}", f"outputs={name}"])
            settings = check_run(for_hydra(words))
            assert [settings.dataset.root, str(settings.output), str(settings.outputs)] == [name] * 3
        new = check_run(for_hydra(words_of(["output=a new, (strange) [file].tif", "input=[a.tif,b c.tif]"])))
        assert str(new.output) == "a new, (strange) [file].tif"
        assert new.options.input == ("a.tif", "b c.tif")
    ended = toys("outputs=out, übü = [1]")
    assert ended.code == 0, ended.err
    assert list(Path("out, übü = [1]").glob("toy/*/*/status.json"))


def test_every_setting_that_is_a_path_or_other_text_is_known_as_one() -> None:
    from rsdiff.app.groups import GROUPS
    from rsdiff.app.help import field_sentences
    from rsdiff.app.words import PATH_NAMES, TEXT_NAMES
    from rsdiff.runs.options import RunOptions

    classes = {cls for table in GROUPS.values() for cls in table.values()} | {RunOptions}
    for cls in classes:
        for name, sentence in field_sentences(cls).items():
            kind = str(cls.__dataclass_fields__[name].type)  # type: ignore[attr-defined]
            says = any(
                sentence.startswith(start)
                for start in ("Folder", "A folder", "The folder", "File ", "A file", "Path", "Raster", "The file")
            )
            if kind in ("str", "str | None"):  # 2, a,b and x{scale} are texts, not a number, a sweep and a mistake
                assert name in TEXT_NAMES, f"{cls.__name__}.{name}: {sentence}"
            if says and kind in ("str", "str | None"):
                assert name in PATH_NAMES, f"{cls.__name__}.{name}: {sentence}"


def test_a_sweep_is_checked_value_by_value_and_run_by_run(toys: Command) -> None:
    from rsdiff.app import command_line

    with command_line.composing(Path("repository/conf").resolve()):
        sweep = ["seed=range(0,8)", "model=toy,toy_tiny", "degradation=toy", "scale=2,4", "dataset.size=8,16"]
        command = command_line.check_sweep(sweep)
        assert len(command.cells) == len(command.runs) == 64
        for cell, run in list(zip(command.cells, command.runs, strict=True))[::9]:
            alone = command_line.check_run(cell)
            assert (run.signature, run.choices, run.resolved) == (alone.signature, alone.choices, alone.resolved)
    assert yaml.safe_load(yaml.safe_dump(dict(command.runs[-1].resolved)))["dataset"]["size"] == 16

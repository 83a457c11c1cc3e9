"""What Hydra's manual says, with the installed package and the installed plugin in an empty folder: called by .ci/wheel.

All commands are typed in one process, because PyTorch takes longer to start than most of them take.
"""

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rsdiff.app.main import main

SMALL = ["task=evaluate", "model=bicubic", "dataset.size=32", "dataset.test_images=1", "metrics.metrics=[psnr]"]
TINY = ["trainer.steps=2", "trainer.batch=2", "trainer.patch=32", "dataset.size=64", "metrics.metrics=[psnr,median_error]"]


def typed(*words: str, code: int = 0) -> str:
    """Do a command as the shell would hand it over and return what it printed; it has to end with `code`."""
    sys.argv = ["rsdiff", *words]
    printed = io.StringIO()
    ended = 0
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
    assert ended == code, f"{' '.join(words)}: code {ended}\n{printed.getvalue()}"
    print("rsdiff", *words)
    return printed.getvalue()


def states(folder: str) -> list[str]:
    """Return how the runs of a sweep ended."""
    return [json.loads(path.read_text())["state"] for path in sorted(Path(folder).glob("run_*.json"))]


def check() -> None:
    """Type everything; an assertion fails where something does not work."""
    Path("own/dataset").mkdir(parents=True)
    Path("own/dataset/mine.yaml").write_text("defaults: [synthetic, _self_]\nsize: ${oc.decode:${oc.env:MY_SIZE,32}}\n")
    Path("own/other.yaml").write_text("defaults: [config, _self_]\nseed: 7\n")
    os.environ["COMP_LINE"], os.environ["COMP_POINT"] = "rsdiff model=sr3_t", "18"
    shown = ["--cfg", "job", "--package"]

    assert typed("--config-dir", "own", "dataset=mine", *shown, "dataset.size", "--resolve") == "32\n"
    assert typed("dataset=mine", f"hydra.searchpath=[file://{Path('own').resolve()}]", *shown, "dataset.size", "--resolve") == "32\n"
    assert typed("-cd", "own", "-cn", "other", *shown, "seed") == "7\n"
    assert "model=sr3_tiny" in typed("-sc", "query=bash")
    assert "rsdiff://" in typed("--info", "searchpath")
    assert "callbacks" in typed("--cfg", "hydra")
    typed("-m", *SMALL, "model=glob(bicubi*)", "seed=range(0,2)", "degradation=choice(bicubic,iso)", "hydra.sweep.dir=there")
    assert states("there") == ["finished"] * 4
    typed(*SMALL, "hydra.run.dir=here", "~trainer", "seed=2", "seed=3")
    assert json.loads(Path("here/status.json").read_text())["state"] == "finished"
    typed(*SMALL, "hydra.job.chdir=true", "hydra/job_logging=default", "seed=4")
    assert "needs a sampler and ~sampler leaves none" in typed(*SMALL, "~sampler", code=2)
    assert "seed takes its value from the environment variable NO_SUCH" in typed(*SMALL, "seed=${oc.env:NO_SUCH}", code=2)
    assert "write trainer.steps=null" in typed("trainer.steps=None", code=2)

    assert "model.gradient_weight" in typed("model=mysr", "--help")
    swept = typed("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model=mysr", "degradation=haze", "model.width=8,12", *TINY)
    assert "2 of 2 runs finished" in swept, swept
    run = sorted(Path("outputs/train").glob("mysr-*/*"))[0]
    assert "Median error" in typed("task=evaluate", f"checkpoint={run}", "dataset.seed=3", "metrics.metrics=[median_error]")


if __name__ == "__main__":  # workers of launchers may import this file
    check()

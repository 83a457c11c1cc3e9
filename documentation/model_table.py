"""The tables of docs/models.md: every published model with its size, what a restoration costs, and where its authors publish it.

Parameters are counted on PyTorch's meta device, so that nothing is drawn and no memory is taken; costs are measured once per model and kept
in docs/model_costs.json: make model-table, with MODELS="sr3 liif" to measure these again, MODELS=none to measure nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from hydra import compose

from documentation.matrix import Shipped, shipped, with_features
from documentation.model_costs import MOST_OPERATIONS, SIDE, Cost, cost_of, processor
from documentation.names import chosen
from rsdiff.app.command_line import CONFIG_NAME, composing
from rsdiff.app.composition import group_config
from rsdiff.app.schemas import register_schemas
from rsdiff.config import UserError
from rsdiff.config.pace import duration
from rsdiff.data.frames import markdown_of
from rsdiff.methods.base import MethodConfig, Problem
from rsdiff.weights.keymaps import KEY_MAPS
from rsdiff.weights.releases import Release, release_of

BANDS = ((3, 3), (48, 12), (48, 3), (31, 3))
"""Bands of target and input that are tried, in this order; at x1, where bands are added to pixels that stay, from the end."""
SCALES = (4.0, 8.0, 2.0, 1.0)
RECORDS = Path("docs/model_costs.json")


def published(options: Shipped) -> list[str]:
    """Return the names of the published configurations."""
    return sorted(name for name in options.models if not name.endswith(("_tiny", "_quick")))


def cost_table(options: Shipped, records: Mapping[str, Any]) -> str:
    """Return the table of sizes and costs as Markdown: one line per published configuration."""
    rows = []
    for name in published(options):
        problem = problem_for(options.models[name])
        count = None if problem is None else parameters_of(options.models[name], problem)
        counted = "-" if count is None else millions(count)
        treated = "-" if problem is None else f"x{problem.scale:g}, {problem.lr_bands} to {problem.bands}"
        record = records.get(name)
        cost = None if record is None else cost_in(record)
        rows.append([f"[`{name}`](method/{options.kinds[name]}.md)", counted, treated, *cells_of(cost)])
    heads = ["`model=`", "parameters", "scale, bands", "steps", "GFLOP a step", "s a step", "GFLOP", "time", "memory"]
    return markdown_of(heads, rows, [head for head in heads if head not in ("`model=`", "scale, bands")])


def cost_in(record: Mapping[str, Any]) -> Cost | None:
    """Return the cost in a record, or None where it says why there is none."""
    return None if record["cost"] is None else Cost(**record["cost"])


def cells_of(cost: Cost | None) -> list[str]:
    """Return steps, GFLOP and seconds of a step, GFLOP and time of an image, and memory, as a reader sees them."""
    if cost is None:
        return ["-"] * 6
    steps = [f"{cost.steps:,}", f"{cost.per_step / 1e9:,.3g}", "-" if cost.step_seconds is None else f"{cost.step_seconds:.2g}"]
    time = "-" if cost.seconds is None else f"{cost.seconds:.2g} s" if cost.seconds < 60 else duration(cost.seconds)
    memory = f"{cost.memory / 2**20:,.0f} MiB" if cost.memory < 2**30 else f"{cost.memory / 2**30:.1f} GiB"
    operations = f"{cost.operations / 1e9:,.0f}" if cost.operations >= 1e10 else f"{cost.operations / 1e9:.2g}"
    return [*(steps if cost.steps else ["-"] * 3), operations, time, memory]


def release_table(options: Shipped) -> str:
    """Return the table of published code and weights as Markdown: one line per release."""
    lines: dict[tuple[Release, bool], list[str]] = {}
    for name in published(options):
        kind = options.kinds[name]
        release = release_of(name, kind)
        if release is not None:
            lines.setdefault((release, kind in KEY_MAPS), []).append(f"`{name}`")
    rows = []
    for (release, imports), names in lines.items():
        weights = f"[weights]({release.weights})" if release.weights else "-"
        note = f" ({release.note})" if release.note else ""
        rows.append(
            [", ".join(names), f"[{release.repository}]({release.address})", release.licence, weights + note, "yes" if imports else "-"]
        )
    return markdown_of(["`model=`", "authors' code", "its licence", "authors' weights", "`task=import`"], rows)


def page_of(options: Shipped, records: Mapping[str, Any]) -> str:
    """Return what stands between the marks of docs/models.md."""
    told = sorted({(record["processor"], record["torch"], record["date"]) for record in records.values()})
    where = "; ".join(f"{processor}, PyTorch {version}, {when}" for processor, version, when in told) or "nothing yet"
    untimed = [f"`{name}`" for name, record in sorted(records.items()) if record["cost"] and record["cost"]["seconds"] is None]
    reasons: dict[str, list[str]] = {}
    for name, record in sorted(records.items()):
        if record["cost"] is None:
            reasons.setdefault(re.sub(r"^model=\w+ ", "", record["reason"]).removesuffix("."), []).append(f"`{name}`")
    missing = [f"`{name}`" for name in published(options) if name not in records and problem_for(options.models[name]) is not None]
    lines = [
        f"Of one image of {SIDE} x {SIDE} target pixels. `GFLOP` counts a multiplication and an addition as two operations. Of a",
        "diffusion, `steps` are those of its published sampler, and the last columns are of all of them; other methods take one pass.",
        f"`time` is processor time on one core ({where}), the least of up to three restorations, in float32; of more than one or two",
        "steps it is computed from their operations. It is not elapsed time: other programs ran beside, whose waiting is not counted,",
        "but which share the memory's bandwidth, so that a quiet machine may be somewhat faster. GPUs were not measured.",
        "`memory` holds the weights and the most tensors that are alive at once, in float32.",
        "",
        cost_table(options, records),
    ]
    if untimed:
        lines += [
            "",
            f"Not timed, because the shortest restoration takes more than {MOST_OPERATIONS / 1e12:g} TFLOP: {', '.join(untimed)}.",
        ]
    lines += [line for reason, names in reasons.items() for line in ("", f"Without costs: {', '.join(names)} ({reason}).")]
    if missing:
        lines += ["", f"Not measured yet, or known from a file of weights alone: {', '.join(missing)}."]
    lines += [
        "",
        "## Published code and weights",
        "",
        "rsdiff downloads nothing: fetch a file from its authors, then `python run.py task=import model=NAME source=FILE` makes a",
        "checkpoint of it. Licences are those of the code; ask the authors where none is stated, and mind that weights and training",
        "images may have others.",
        "",
        release_table(options),
    ]
    return "\n".join(lines) + "\n"


def problem_for(config: MethodConfig) -> Problem | None:
    """Return the first problem that a model can treat, RGB at x4 where it can."""
    for scale in SCALES:
        for bands, lr_bands in BANDS if scale > 1 else reversed(BANDS):
            problem = Problem(scale, bands, lr_bands)
            if config.refuse(problem) is None:
                return problem
    return None


def parameters_of(config: MethodConfig, problem: Problem) -> int | None:
    """Return how many weights a model has that restores: without discriminators and momentum encoders; None where a file decides."""
    method: Any
    try:
        with torch.device("meta"):
            method = config.build(problem)
    except UserError:
        return None
    except RuntimeError:  # a network that computes with its own buffers while it is built
        method = config.build(problem)
    return int(method.parameter_count())


def millions(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count >= 10_000 else str(count)


def measured(repository: Path, options: Shipped, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, record) of the costs of models, those of one network once; a record says why there are none."""
    known: list[Cost] = []
    for name in names:
        problem = problem_for(options.models[name])
        if problem is None:
            continue
        with composing(repository / "conf"):
            sampler = group_config(compose(CONFIG_NAME, [f"model={name}"]), "sampler")
        try:
            method = options.models[name].build(problem)
        except UserError:  # a file of weights tells the network
            continue
        when = {"processor": processor(), "torch": torch.__version__.partition("+")[0], "date": date.today().isoformat()}
        try:
            cost = cost_of(method, problem, sampler, known)
        except UserError as reason:
            yield name, {"cost": None, "reason": str(reason), **when}
            continue
        known.append(cost)
        yield name, {"cost": cost.to_dict(), **when}


def main(repository: Path, names: Sequence[str]) -> None:
    """Measure `names` ("none": nothing), or what was never measured, and write the tables into docs/models.md."""
    if names != ["none"]:
        chosen(names, [path.stem for path in sorted((repository / "conf/model").glob("*.yaml"))], "model")
    register_schemas()
    options = shipped(repository / "conf")
    path = repository / RECORDS
    records: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    wanted = [name for name in names if name != "none"] if names else [name for name in published(options) if name not in records]
    for name, record in measured(repository, options, wanted):
        records[name] = record
        path.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n")
        print(f"{name}: {', '.join(cells_of(cost_in(record))) if record['cost'] else record['reason']}", flush=True)
    page = repository / "docs" / "models.md"
    page.write_text(with_features(page.read_text(), page_of(options, records)))
    print(f"wrote the tables of models into {page}")


if __name__ == "__main__":
    main(Path.cwd(), sys.argv[1:])

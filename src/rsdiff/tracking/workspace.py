"""A W&B workspace for runs of rsdiff: python -m rsdiff.tracking.workspace ENTITY [PROJECT].

Loss and validation, quality against sampler steps and against time, tables per degradation, pictures. It is made once per project through
W&B's own library and only online; without a network the pages of task=evaluate and task=tables show the same.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rsdiff.tracking.wandb import has_key

NAME = "rsdiff"
METRICS = ("psnr", "ssim", "lpips_alex", "fid")
GROUPS = ("restorer", "generator", "discriminator", "encoder")


def libraries() -> tuple[Any, Any]:
    """Return W&B's modules for workspaces and for their panels; raises ImportError in one sentence."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise ImportError(
            "the W&B workspace needs wandb-workspaces, which is not installed; type pip install 'rsdiff[dashboards]'."
        ) from error
    return workspaces, panels


def make_workspace(entity: str, project: str) -> Any:
    """Return the workspace, not saved yet."""
    workspaces, panels = libraries()

    def section(name: str, content: list[Any]) -> Any:
        return workspaces.Section(name=name, panels=content, is_open=True)

    losses = panels.LinePlot(title="Training loss", x="Step", y=[f"{group}/total" for group in GROUPS], log_y=True, smoothing_factor=0.6)
    validation = [panels.LinePlot(title=f"Validation {metric}", x="Step", y=[f"validation/{metric}"]) for metric in ("psnr", "ssim")]
    against_steps = [
        panels.ScatterPlot(
            title=f"{metric} against sampler steps", x=panels.Config("sampler.steps"), y=panels.SummaryMetric(metric), log_x=True
        )
        for metric in METRICS
    ]
    against_time = [
        panels.ScatterPlot(
            title=f"{metric} against seconds per image",
            x=panels.SummaryMetric("seconds_per_image"),
            y=panels.SummaryMetric(metric),
            log_x=True,
        )
        for metric in METRICS
    ]
    plane = panels.ScatterPlot(title="Perception and distortion", x=panels.SummaryMetric("psnr"), y=panels.SummaryMetric("lpips_alex"))
    results = panels.WeavePanelSummaryTable(table_name="tables/results")
    pictures = panels.MediaBrowser(title="Validation", media_keys=["images/validation"], num_columns=2)
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            section("Training", [losses, *validation]),
            section("Quality against cost", [*against_steps, *against_time, plane]),
            section("Results per degradation", [results]),
            section("Pictures", [pictures]),
        ],
    )


def main() -> int:
    """Create the workspace and say where it is; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rsdiff.tracking.workspace", description="Create the W&B workspace of rsdiff.")
    parser.add_argument("entity", help="W&B user or team")
    parser.add_argument("project", nargs="?", default="rsdiff", help="W&B project (default: rsdiff)")
    given = parser.parse_args()
    if not has_key():
        print("error: W&B has no key; set WANDB_API_KEY or type `wandb login`.", file=sys.stderr)
        return 2
    try:
        saved = make_workspace(given.entity, given.project).save()
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"workspace  {saved.url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

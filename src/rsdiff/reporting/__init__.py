"""What a run leaves for people: per-image records, comparison panels, figures, tables and one HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.reporting.figures import CostPoint, loss_curve, metric_histograms, quality_against_cost
    from rsdiff.reporting.html import RunFacts, write_report
    from rsdiff.reporting.panels import Panel, write_panel
    from rsdiff.reporting.records import read_records, write_records
    from rsdiff.reporting.scene_page import BeforeAfter, write_scene_page
    from rsdiff.reporting.sweep_page import SweptRun, write_sweep_page
    from rsdiff.reporting.tables import console_table, markdown_table

_MODULES = {
    "BeforeAfter": "scene_page",
    "CostPoint": "figures",
    "Panel": "panels",
    "RunFacts": "html",
    "SweptRun": "sweep_page",
    "console_table": "tables",
    "loss_curve": "figures",
    "markdown_table": "tables",
    "metric_histograms": "figures",
    "quality_against_cost": "figures",
    "read_records": "records",
    "write_panel": "panels",
    "write_records": "records",
    "write_report": "html",
    "write_scene_page": "scene_page",
    "write_sweep_page": "sweep_page",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "BeforeAfter",
    "CostPoint",
    "Panel",
    "RunFacts",
    "SweptRun",
    "console_table",
    "loss_curve",
    "markdown_table",
    "metric_histograms",
    "quality_against_cost",
    "read_records",
    "write_panel",
    "write_records",
    "write_report",
    "write_scene_page",
    "write_sweep_page",
]

"""What a run leaves for people: per-image records, comparison panels, figures, tables and one HTML report."""

from rsdiff.reporting.figures import CostPoint, loss_curve, metric_histograms, quality_against_cost
from rsdiff.reporting.html import RunFacts, write_report
from rsdiff.reporting.panels import Panel, write_panel
from rsdiff.reporting.records import read_records, write_records
from rsdiff.reporting.scene_page import BeforeAfter, write_scene_page
from rsdiff.reporting.sweep_page import SweptRun, write_sweep_page
from rsdiff.reporting.tables import console_table, markdown_table

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

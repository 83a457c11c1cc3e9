"""What a run leaves for people: per-image records, comparison panels, figures, tables and one HTML report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.reporting.figures import (
        CostPoint as CostPoint,
    )
    from rsdiff.reporting.figures import (
        loss_curve as loss_curve,
    )
    from rsdiff.reporting.figures import (
        metric_histograms as metric_histograms,
    )
    from rsdiff.reporting.figures import (
        quality_against_cost as quality_against_cost,
    )
    from rsdiff.reporting.html import RunFacts as RunFacts
    from rsdiff.reporting.html import write_report as write_report
    from rsdiff.reporting.panels import Panel as Panel
    from rsdiff.reporting.panels import write_panel as write_panel
    from rsdiff.reporting.records import read_records as read_records
    from rsdiff.reporting.records import write_records as write_records
    from rsdiff.reporting.sweep_page import SweptRun as SweptRun
    from rsdiff.reporting.sweep_page import write_sweep_page as write_sweep_page
    from rsdiff.reporting.tables import console_table as console_table
    from rsdiff.reporting.tables import markdown_table as markdown_table

_MODULES = {
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
    "write_sweep_page": "sweep_page",
}
__getattr__ = on_demand(__name__, _MODULES)

"""Image-quality metrics, the protocols they are computed under, and the evaluator that scores a restored batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.metrics.evaluator import Evaluator, Row
    from rsdiff.metrics.metric import Metric
    from rsdiff.metrics.options import MetricsConfig
    from rsdiff.metrics.protocol import ProtocolConfig
    from rsdiff.metrics.summary import MetricSummary, Summary, Unavailable
    from rsdiff.metrics.table import METRICS

_MODULES = {
    "METRICS": "table",
    "Evaluator": "evaluator",
    "Metric": "metric",
    "MetricSummary": "summary",
    "MetricsConfig": "options",
    "ProtocolConfig": "protocol",
    "Row": "evaluator",
    "Summary": "summary",
    "Unavailable": "summary",
}
__getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "METRICS",
    "Evaluator",
    "Metric",
    "MetricSummary",
    "MetricsConfig",
    "ProtocolConfig",
    "Row",
    "Summary",
    "Unavailable",
]

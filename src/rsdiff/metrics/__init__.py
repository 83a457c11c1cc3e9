"""Image-quality metrics, the protocols they are computed under, and the evaluator that scores a restored batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import on_demand

if TYPE_CHECKING:
    from rsdiff.metrics.evaluator import Evaluator as Evaluator
    from rsdiff.metrics.evaluator import Row as Row
    from rsdiff.metrics.metric import Metric as Metric
    from rsdiff.metrics.options import MetricsConfig as MetricsConfig
    from rsdiff.metrics.protocol import ProtocolConfig as ProtocolConfig
    from rsdiff.metrics.summary import MetricSummary as MetricSummary
    from rsdiff.metrics.summary import Summary as Summary
    from rsdiff.metrics.summary import Unavailable as Unavailable
    from rsdiff.metrics.table import METRICS as METRICS

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

"""Image-quality metrics, the protocols they are computed under, and the evaluator that scores a restored batch."""

from rsdiff.metrics.evaluator import Evaluator, Row
from rsdiff.metrics.metric import Metric
from rsdiff.metrics.options import MetricsConfig
from rsdiff.metrics.protocol import ProtocolConfig
from rsdiff.metrics.summary import MetricSummary, Summary, Unavailable
from rsdiff.metrics.table import METRICS

__all__ = ["METRICS", "Evaluator", "Metric", "MetricSummary", "MetricsConfig", "ProtocolConfig", "Row", "Summary", "Unavailable"]

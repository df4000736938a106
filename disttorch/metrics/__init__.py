"""Metrics of a whole epoch on all ranks: sums are kept here, added up over the ranks once, and divided at the end.

The mean of the ranks' accuracies is not the accuracy where ranks have unequal shares; the ratio of the sums is. Without a
process group the same metrics are those of this process.
"""

from .classification import Accuracy, ConfusionMatrix, F1Score, Precision, Recall
from .means import Mean, Perplexity, Throughput
from .metric import Metric, MetricCollection
from .regression import MeanAbsoluteError, MeanSquaredError, R2Score

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "F1Score",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "MetricCollection",
    "Perplexity",
    "Precision",
    "R2Score",
    "Recall",
    "Throughput",
]

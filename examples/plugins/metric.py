"""A metric: the share of examples for which a wrong candidate was chosen. --metrics metric.py:ERROR_RATE,accuracy"""

from mezo.metrics import METRICS, ChoiceMetric

ERROR_RATE = ChoiceMetric(
    "error-rate", lambda examples, choices: 1 - METRICS["accuracy"].of(examples, choices)
)

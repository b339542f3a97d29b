"""The numbers of a run for TensorBoard, Weights & Biases, MLflow and Prometheus, by these projects' own packages."""

from mezo.sinks.logging import SINKS, Several, check, logging_to, names_for

__all__ = ["SINKS", "Several", "check", "logging_to", "names_for"]

"""The metrics by name, all from 0 to 1. A new one is one file and one line here."""

from mezo.errors import MezoError
from mezo.metrics.accuracy import ACCURACY
from mezo.metrics.base import ChoiceMetric, Metric, TextMetric
from mezo.metrics.drop import DROP_EM, DROP_F1
from mezo.metrics.last_number import LAST_NUMBER
from mezo.metrics.macro_f1 import MACRO_F1
from mezo.metrics.multirc import MULTIRC_EM, MULTIRC_F1A
from mezo.metrics.record import RECORD_EM, RECORD_F1
from mezo.metrics.rouge import ROUGE
from mezo.metrics.squad import SQUAD_EM, SQUAD_F1
from mezo.util.plugins import find, made

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ACCURACY,
        MACRO_F1,
        *(MULTIRC_F1A, MULTIRC_EM),
        *(RECORD_F1, RECORD_EM),
        *(SQUAD_F1, SQUAD_EM),
        *(DROP_F1, DROP_EM),
        *ROUGE.values(),
        LAST_NUMBER,
    )
}


def metric_named(name: str) -> Metric:
    """A metric of the table, or a plugin's. Raises MezoError for any other name."""
    found, settings = find("metrics", name, METRICS)
    if isinstance(found, type):
        return made(f"metric {name!r}", found, settings)
    if settings:
        raise MezoError(f"metric {name!r}: an object, which takes no settings: name its class")
    return found


__all__ = ["METRICS", "ChoiceMetric", "Metric", "TextMetric", "metric_named"]

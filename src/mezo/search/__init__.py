"""Finding a learning rate and an epsilon on one's own data: `mezo tune`."""

from mezo.search.halving import SearchResult, tune
from mezo.search.trials import Trial

__all__ = ["SearchResult", "Trial", "tune"]

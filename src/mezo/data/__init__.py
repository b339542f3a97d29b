"""Examples: read, checked, sampled, tokenised, and dealt out in batches."""

from mezo.data.dataset import MeZODataset
from mezo.data.encoded import EncodedDataset
from mezo.data.encoding import Kind, encode

__all__ = ["EncodedDataset", "Kind", "MeZODataset", "encode"]

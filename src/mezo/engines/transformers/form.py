"""How a model is run: which shortcuts its structure allows, as `engines.transformers.selfcheck` found out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Form:
    """How a model is run. The defaults are the slowest form, which is the model's own forward."""

    packed: bool = False  # several rows in one rectangle row, by 4-D mask and explicit positions
    position_offset: int = 0  # RoBERTa counts positions from padding_idx + 1
    pack_limit: int = 1 << 30  # longest rectangle row: positions and attention windows
    attention_share: float = 0.0  # cost of a query-key pair over that of a token elsewhere
    key_share: float = 0.0  # cost of handing a token's keys and values to a row, likewise
    padded: bool = False  # rows of unequal length in one rectangle, by 2-D mask; else those of one length
    whole_head: bool = False  # logits go through the model's own last steps
    plain: bool = False  # every module's own forward on its whole perturbed tensors, logits in full
    stacked: bool = False  # all probes in one pass
    shared: bool = False  # leading tokens that rows share are computed once
    width: int | None = None  # of the rectangle where tokens are packed or shared; None: what costs least

"""Where a view of a tensor sits inside the whole, unsharded tensor."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Where:
    """Where a 2-D view sits inside the whole, unsharded tensor."""

    tensor_id: int  # uint32
    start: int = 0  # global element index of view[0, 0]
    row_stride: int | None = None  # global indices from one row to the next; None: the view's own columns

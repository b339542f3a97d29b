"""peft's library, without what its user can do nothing about."""

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """peft 0.21 asks transformers 5 for a property by its old name. Of factors on a tied head it warns of merging, where
    `mezo merge` unties the head first; and of those on a Linear in a model of Conv1D, whose layout it then sets right.
    It knows no sizes of a norm."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        yield

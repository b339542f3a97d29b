"""RUN/reference.safetensors: the start's log-probabilities of the answers, for objectives that compare with them."""

from pathlib import Path

from mezo.data.references import References
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.util.atomic_files import replacing
from mezo.util.foreign import kind_of

_MOST = 1 << 30  # bytes: 32 million rows


def write_references(run: RunFolder, references: References | None) -> None:
    """Write the file, if the run has them. Raises OSError if it cannot be written."""
    if references is not None:
        with replacing(run.reference) as temporary:
            temporary.write_bytes(references.to_bytes())


def references_of(run: Path) -> References:
    """Those that a run has kept; none where it has not. Raises MezoError for a file that is something else."""
    path = RunFolder(run).reference
    if not path.exists():
        return References()
    if (kind := kind_of(path)) is not None or path.stat().st_size > _MOST:
        raise MezoError(f"{path}: expected a file of log-probabilities, found {kind or 'a larger one'}")
    return References.of_bytes(path.read_bytes(), path)

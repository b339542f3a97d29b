"""A run's adapter or model on the Hugging Face hub, with its card."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mezo.errors import MezoError
from mezo.models.load import describe
from mezo.runs.card import weights_card
from mezo.runs.outputs.finished import FinishedRun
from mezo.runs.outputs.merge import outcome_of
from mezo.util.atomic_files import reason, write_text
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_yaml
from mezo.util.secrets import hidden

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CARD = "README.md"


@dataclass(frozen=True)
class Upload:
    """What goes to the hub.

    Args:
        folder: RUN/adapter or RUN/model.
        name: of the repository, user/name.
        files: sizes in bytes, by name.
        metadata: of the card.
        address: of the repository, once it is there.
    """

    folder: Path
    name: str
    files: Mapping[str, int]
    metadata: Mapping[str, Any]
    address: str | None = None


def push(run: Path | str, name: str, *, private: bool = False, dry_run: bool = False) -> Upload:
    """Upload a run's adapter or model with its card.

    The token is that of `hf auth login`, or HF_TOKEN; HF_ENDPOINT names another hub.

    Args:
        run: a RUN folder.
        name: of the repository, user/name; it is made if it is not there.
        private: make it a private one.
        dry_run: upload nothing.

    Returns:
        What goes, or went, there.

    Raises:
        MezoError: the run has no weights, the name cannot be one, or the hub refuses.

    Example:
        >>> from mezo.runs.outputs.push import push
        >>> push("runs/lora", "me/my-adapter", dry_run=True).address  # doctest: +SKIP
    """
    if not _NAME.fullmatch(name):
        raise MezoError(f"expected the repository's name as user/name, found {name!r:.80}")
    done = FinishedRun.open(run)
    upload = _prepared(done, name, dry_run=dry_run)
    if dry_run:
        return upload
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        if private and not api.repo_info(name).private:
            raise MezoError(
                f"{name}: is there already, and public: make it private on the hub, or give another name"
            )
        api.upload_folder(
            repo_id=name,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message="Weights tuned with MeZO",
        )
    except MezoError:
        raise
    except HfHubHTTPError as error:
        raise MezoError(f"{name}: the hub refuses: {_refusal(error)}") from None
    except Exception as error:  # of the network, or of the library's own checks
        raise MezoError(f"{name}: cannot upload: {hidden(reason(error))[:300]}") from None
    return Upload(upload.folder, name, upload.files, upload.metadata, address)


def _prepared(done: FinishedRun, name: str, *, dry_run: bool) -> Upload:
    """With a card: a run of an earlier version has none beside its weights."""
    folder, card = done.weights, done.weights / _CARD
    if card.is_file():
        text = read_text(card)
    else:
        text = weights_card(done.run, outcome_of(done), kind=describe(done.base).kind)
        if not dry_run:
            write_text(card, text)
    files = {
        path.name: path.stat().st_size
        for path in folder.iterdir()
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    }
    return Upload(
        folder, name, dict(sorted((files | {_CARD: len(text.encode())}).items())), _metadata(card, text)
    )


def _metadata(card: Path, text: str) -> dict[str, Any]:
    """The block at the card's top, which the hub reads."""
    parts = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
    try:
        found = parse_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except ValueError as error:
        raise MezoError(f"{card}: its metadata is no YAML: {error}") from None
    if not isinstance(found, dict):
        raise MezoError(
            f"{card}: expected a card that begins with metadata between two lines of ---, found none"
        )
    return {str(key): value for key, value in found.items()}


def described(metadata: Mapping[str, Any]) -> str:
    """The metadata as the card has it."""
    return yaml.safe_dump(dict(metadata), sort_keys=False).rstrip()


def _refusal(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = hidden(" ".join(str(getattr(error, "server_message", None) or error).split()))[:200]
    if status == 401:
        return f"no valid token ({said}): run `hf auth login`, or set HF_TOKEN to a token that may write"
    if status == 403:
        return f"this token may not write there ({said}): check the user's name and the token's rights"
    return said

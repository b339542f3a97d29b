"""Chat templates by name, for models that come without one. A new one is one .jinja file and one line here."""

import os
from pathlib import Path
from typing import Any

from mezo.errors import MezoError, near

# name -> file in this folder
CHAT_TEMPLATES: dict[str, str] = {"chatml": "chatml.jinja", "plain": "plain.jinja"}
_MOST = 1 << 20  # bytes of a file; templates have a few thousand


def with_chat_template(tokenizer: Any, template: str | None) -> Any:
    """Give the tokenizer a chat template: one of CHAT_TEMPLATES, or a Jinja file. It is saved with the tokenizer.

    Raises MezoError if there is no such template, or the file cannot be read.
    """
    if template is None:
        return tokenizer
    path = (
        Path(__file__).parent / CHAT_TEMPLATES[template]
        if template in CHAT_TEMPLATES
        else Path(os.path.expanduser(template))
    )
    if template not in CHAT_TEMPLATES and not path.is_file():
        raise MezoError(
            f"unknown chat template {template!r}{near(template, CHAT_TEMPLATES)}, or a Jinja file"
        )
    try:
        if path.stat().st_size > _MOST:
            raise MezoError(f"{path}: expected a chat template of at most {_MOST:,} bytes, found more")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MezoError(f"{path}: not a readable chat template: {error}") from None
    return tokenizer

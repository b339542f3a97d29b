"""Keys and passwords: not in settings, which are saved with a run, and not in what is printed."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

# as the end of a name: hf_token and api-key are secrets, max_total_tokens, tokenizer_path and ssl_keyfile are not
_NAME = re.compile(
    r"(?:^|[_\-.])(?:api_?key|key|token|secret|passw(?:or)?d|passphrase|credentials?|auth(?:orization)?)$",
    re.IGNORECASE,
)
_ENVIRONMENT = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8  # characters of a secret or of a piece of it; to blot out shorter ones would blot out words


def check_settings(server: Iterable[str] | None, server_args: Mapping[str, Any]) -> None:
    """Raises ValueError, without the secret in it, if a server's address or an option of an engine holds one."""
    for address in server or ():
        if _in_address(address):
            raise ValueError(
                "server: an address has a name or a password in it, and settings are saved with a run: expected "
                "http://HOST:PORT; an API key goes into the environment (MEZO_API_KEY)"
            )
    for name, value in _flat("server_args", server_args):
        if (isinstance(value, str) and value and _NAME.search(name)) or _in_address(value):
            raise ValueError(
                f"{name}: looks like a secret, and settings are saved with a run; leave it away, and give it to the "
                "engine through the environment (HF_TOKEN, or a variable of the engine's own)"
            )


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flat(name, inner)
    else:
        yield name, value


def _in_address(value: Any) -> bool:
    if not isinstance(value, str) or "://" not in value:
        return False
    try:
        return urlsplit(value).username is not None
    except ValueError:
        return "@" in value


def hidden(text: str, *secrets: str | None) -> str:
    """`text` with *** for every piece, of 8 characters or more, of a secret.

    Secrets are `secrets`, and the values of environment variables whose names suggest one. Texts of servers and
    libraries
    pass through here before they are cut: the rest of a cut key is still a part of it.
    """
    found = [secret for secret in secrets if secret]
    found += [value for name, value in os.environ.items() if _ENVIRONMENT.search(name) and _is_secret(value)]
    for secret in sorted(set(found), key=len, reverse=True):
        text = _blotted(text, secret)
    return text


def _is_secret(value: str) -> bool:
    """A variable such as SSL_KEY_FILE may also name a file, whose path is no secret."""
    return len(value) >= _SHORTEST and not (
        value.startswith(("/", "~")) and os.path.exists(os.path.expanduser(value))
    )


def _blotted(text: str, secret: str) -> str:
    if len(secret) < _SHORTEST:
        return text.replace(secret, "***")
    small, lowered = secret.lower(), text.lower()
    if len(lowered) != len(text):  # a few letters have another length in lower case
        small, lowered = secret, text
    pieces = {small[at : at + _SHORTEST] for at in range(len(small) - _SHORTEST + 1)}
    parts: list[str] = []
    at = done = 0
    while at + _SHORTEST <= len(text):
        if lowered[at : at + _SHORTEST] not in pieces:
            at += 1
            continue
        parts += [text[done:at], "***"]
        done = at + _SHORTEST
        while done < len(text) and lowered[done - _SHORTEST + 1 : done + 1] in pieces:
            done += 1
        at = done
    return "".join((*parts, text[done:]))

"""Text whose encoding was mistaken: UTF-8 that was read as Windows-1252."""

import re

_UNDEFINED = {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # Windows-1252 has no letter there
_LETTERS = {(bytes([b]).decode("cp1252") if b not in _UNDEFINED else chr(b)): b for b in range(0x80, 0x100)}
_RUN = re.compile(f"[{re.escape(''.join(_LETTERS))}]{{2,}}")


def repaired(text: str) -> str:
    """`text` with UTF-8 that was read as Windows-1252 corrected: "ðŸ§\\xa0" is "🧠".

    Only runs of letters that are whole UTF-8 are changed; "naïve café" is not.
    """

    def back(match: re.Match[str]) -> str:
        try:
            return bytes(_LETTERS[letter] for letter in match[0]).decode("utf-8")
        except UnicodeDecodeError:
            return match[0]

    return _RUN.sub(back, text)

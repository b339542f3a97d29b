"""What language models are asked, in files of this folder."""

from importlib.resources import files


def prompt(name: str) -> str:
    """The text of NAME.txt."""
    return files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8")

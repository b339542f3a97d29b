"""One command-line option for every field of MeZOConfig.

Type, default, bounds and words are the field's own.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from mezo.config import METHOD, WHAT, MeZOConfig, choices_of
from mezo.errors import MezoError
from mezo.util.parsing import parse_json, parse_yaml
from mezo.util.plugins import allowing
from mezo.util.presets import PRESETS
from mezo.util.registry import names_in

PLUGIN = typer.Option(
    "--plugin",
    metavar="MODULE:NAME",
    show_default=False,
    rich_help_panel=WHAT,
    help="Let a file (settings, a run, a trajectory) name this code of yours, module:name or file.py:name; may be repeated.",
)
_PRESET = inspect.Parameter(
    "preset",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            show_default=False,
            rich_help_panel=METHOD,
            help=f"Settings of a published run; flags win over them. One of {', '.join(PRESETS)}.",
        ),
    ],
)
SETTINGS = tuple(MeZOConfig.model_fields)
# of a command that loads a model and data, and tunes nothing by MeZO
DATA_SETTINGS = (
    *(
        "model",
        "task",
        "data",
        "data_format",
        "metrics",
        "columns",
        "splits",
        "chat_template",
        "turns",
        "append_eos",
        "parse_special",
    ),
    *(
        "label_words",
        "template",
        "dtype",
        "quantize",
        "device",
        "trust_remote_code",
        "max_length",
        "train_examples",
    ),
    *("shots_per_class", "split_sizes", "eval_examples", "seed", "eval_seed"),
)


def panel_of(name: str) -> str:
    """The part of --help that a setting stands in."""
    return _extra(name)["panel"]


def flags_of(name: str) -> tuple[str, ...]:
    """The options that set it, as typer takes them: "--audit/--no-audit" for one that can be turned off."""
    return tuple(_extra(name)["flags"]) or (f"--{name.replace('_', '-')}",)


def described(name: str) -> str:
    """What a setting is, as --help and the reference say it."""
    text, listed = MeZOConfig.model_fields[name].description or "", _extra(name)["listed"]
    return f"{text} {', '.join(names_in(listed))}." if listed else text


def _extra(name: str) -> dict[str, Any]:
    return MeZOConfig.model_fields[name].json_schema_extra  # type: ignore[return-value]


def with_config(fields: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these config fields.

    The command's own `config` parameter (a MeZOConfig) is replaced by those options and `--config
    FILE`; it is called with the config built from both, in which flags win over the file. Where it has a
    `resume` parameter, the run given there is the file.
    """
    names = tuple(fields)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            file: Path | None = given.pop("config_file") or _settings_of(given.get("resume"))
            preset: str | None = given.pop("preset", None)
            if preset and file:
                raise MezoError(
                    f"--preset {preset} and the settings of {file} exclude each other: give flags with one of them"
                )
            values = {name: given.pop(name) for name in names}
            changes = {name: _parsed(name, value) for name, value in values.items() if value is not None}
            with allowing(given.pop("plugin", None) or ()):
                if preset:
                    config = MeZOConfig.preset(preset, **changes)
                else:
                    config = MeZOConfig.load(file, **changes) if file else MeZOConfig.build(**changes)
                return command(config=config, **given)

        own = [p for name, p in inspect.signature(command).parameters.items() if name != "config"]
        file = inspect.Parameter(
            "config_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--config", "-c", help="YAML file of settings; flags win over it.", rich_help_panel=WHAT
                ),
            ],
        )
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + [
            file,
            inspect.Parameter(
                "plugin", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=Annotated[list[str], PLUGIN]
            ),
            *([_PRESET] if "estimator" in names else []),
            *map(_option, names),
        ]
        run.__name__, run.__module__ = command.__name__, command.__module__
        run.__doc__ = paragraphs(command.__doc__ or "")
        run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _settings_of(run: Path | None) -> Path | None:
    """The settings of a run that is to be resumed, which flags are then a change of."""
    from mezo.runs.folder import RunFolder

    return None if run is None else RunFolder.begun(run).config


def paragraphs(doc: str) -> str:
    """A docstring without the line breaks inside its paragraphs: the terminal sets them anew."""
    return "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))


def _option(name: str) -> inspect.Parameter:
    field, choices = MeZOConfig.model_fields[name], choices_of(name)
    kind = _kind_of(field.annotation)
    text = described(name)
    if choices:
        text += f" One of {', '.join(choices)}."
    if field.default not in (None, {}) and kind is not bool:
        text += f" [dim]\\[{field.default:g}][/dim]" if kind is float else f" [dim]\\[{field.default}][/dim]"
    option = typer.Option(
        # A boolean that is False by default has no --no- form: it would fill half the help.
        *flags_of(name),
        help=text,
        rich_help_panel=panel_of(name),
        show_default=False,
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind_of(annotation: Any) -> type:
    """The type that the command line reads a field as; pydantic checks the rest."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not type(None)]
        # a number or a word: as text, of which pydantic makes the number
        annotation = next((a for a in kinds if get_origin(a) is Literal), kinds[0])
    return str if get_origin(annotation) in (Literal, tuple, dict) else annotation


def _parsed(name: str, value: Any) -> Any:
    if name in ("template", "prefill"):
        return value.replace("\\n", "\n")  # a shell has no easy way to write a new line
    if name == "stop":
        return strings(value)
    if name in ("server_args", "columns", "splits"):
        return mapping(value, name)
    annotation = MeZOConfig.model_fields[name].annotation
    is_list = any(get_origin(a) is tuple for a in (annotation, *get_args(annotation)))
    if not is_list:
        return value
    parts = re.split(r",(?![^()]*\))", value)  # a comma inside of a plugin's settings parts nothing
    return tuple(part.strip() for part in parts if part.strip())


def strings(text: str) -> tuple[str, ...]:
    """Texts by comma, with \\n for a new line and spaces kept, or a JSON list of them. Raises MezoError for another."""
    if not text.startswith("["):
        return tuple(text.replace("\\n", "\n").split(","))
    try:
        found = parse_json(text)
    except ValueError as error:
        raise MezoError(f"stop={text!r}: not a readable JSON list: {' '.join(str(error).split())}") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise MezoError(f"stop={text!r}: expected a JSON list of strings")
    return tuple(found)


def mapping(text: str, name: str) -> dict[str, Any]:
    """`a=1,b=text` or a YAML (so also a JSON) mapping, as a dict. Values are read as YAML has them.

    Raises MezoError for anything else.
    """
    if re.match(r"\s*[\w.-]+\s*=", text):
        pairs = [part.partition("=") for part in text.split(",")]
        if any(not key.strip() or not equals for key, equals, _ in pairs):
            raise MezoError(f"{name}={text!r}: expected key=value pairs with commas between them; {_AS_JSON}")
        text = "\n".join(f"{key.strip()}: {value.strip()}" for key, _, value in pairs)
    try:
        found = parse_yaml(text)
    except ValueError as error:
        raise MezoError(f"{name}: not a readable mapping: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise MezoError(
            f"{name}={text!r}: expected key=value pairs or a mapping, found {type(found).__name__}; {_AS_JSON}"
        )
    return {str(key): value for key, value in found.items()}


_AS_JSON = """values that have commas in them need JSON: {"name": [1, 2]}"""

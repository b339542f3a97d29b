"""Whether a run is resumed as what it was: its settings, its base model, its data."""

import json
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.data.lazy import LAZY_FROM, LazyExamples
from mezo.errors import MezoError
from mezo.models.identity import changes
from mezo.util.plugins import KINDS, REPLAYED, load, names_in_use, split

# Settings that may change on the way: they do not affect any recorded number.
FREE = (
    "snapshot_every",
    "checksum_every",
    "rank_timeout",
    "stop_on_explosion",
    "trust_remote_code",
    "audit",
)
# Names of what is compared by content, since folders move.
BY_CONTENT = ("model", "data")
# What the tuned tensors and their noise are: weights of one such setting are nothing to go on from in another.
OF_THE_WEIGHTS = (
    "tuning",
    "train",
    "start",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "prefix_tokens",
    "prefix_init",
    "dtype",
    "quantize",
    "noise",
    "noise_rank",
    "seed",
)


class Difference(NamedTuple):
    what: str  # a setting, or what else differs
    run: str
    now: str


class Changed(MezoError):
    """A run was to be resumed as something else. differences: for a table."""

    def __init__(self, run: Path, differences: Sequence[Difference], advice: str) -> None:
        self.differences = differences
        shown = "; ".join(f"{d.what}: the run has {d.run}, now {d.now}" for d in differences)
        super().__init__(f"{run}: resumed with other settings ({shown}); {advice}")


def of_settings(run: MeZOConfig, now: MeZOConfig) -> list[Difference]:
    """The settings that differ and count; a longer run does not count where no step depends on its length."""
    return [
        Difference(name, _shown(getattr(run, name)), _shown(getattr(now, name)))
        for name in MeZOConfig.model_fields
        if name not in (*FREE, *BY_CONTENT)
        and getattr(run, name) != getattr(now, name)
        and not (name == "num_steps" and _is_longer(run, now))
    ]


def _is_longer(run: MeZOConfig, now: MeZOConfig) -> bool:
    grows = now.final_directions not in (None, now.num_directions)
    return now.num_steps > run.num_steps and now.schedule == "constant" and not grows


def check_settings(path: Path, run: MeZOConfig, now: MeZOConfig) -> None:
    """Raises Changed if the run in `path` cannot be resumed under the settings `now`."""
    if found := of_settings(run, now):
        advice = (
            "leave them as they were, or give --fork NEW_RUN to go on with the new ones in a run of its own"
        )
        if any(d.what in OF_THE_WEIGHTS for d in found):
            advice = "leave them as they were, or start another run"
        raise Changed(path, found, advice)


def check_fork(path: Path, run: MeZOConfig, now: MeZOConfig) -> None:
    """Raises Changed if the weights of the run in `path` cannot be continued from under the settings `now`."""
    found = [d for d in of_settings(run, now) if d.what in OF_THE_WEIGHTS]
    if found:
        raise Changed(
            path, found, "a fork goes on from the run's weights: these it cannot change; start another run"
        )


def check_base(path: Path, header: Mapping[str, Any], found: str) -> None:
    """found: the fingerprint of the base model. Raises Changed if the run has another."""
    expected = header.get("base_fingerprint")
    if expected != found:
        difference = Difference("base model (fingerprint of its weights)", str(expected), found)
        raise Changed(path, [difference], "give the run's own base model with --model, or start another run")


def check_model(path: Path, header: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """found: as `identity_of` has it. Raises Changed if the run's model was another beyond its weights.

    Returns a note for people where the run (of an earlier version) does not say what its model was.
    """
    differing = changes(header.get("model"), found)
    if differing is None:
        return (
            f"{path}: a run of an earlier version, which does not record its model's config and tokenizer: whether they "
            "are still the same was not checked"
        )
    if differing:
        raise Changed(
            path,
            [Difference(each.what, _shown(each.recorded), _shown(each.found)) for each in differing],
            "undo the change, give the run's own base model with --model, or start another run",
        )
    return None


def check_plugins(
    where: Path, header: Mapping[str, Any], settings: Mapping[str, Any], kinds: Collection[str] = tuple(KINDS)
) -> None:
    """Compare the plugins that `settings` name with the header's record of them.

    where: the run. kinds: the settings that count. Raises MezoError if a plugin is missing or nobody but the file names it,
    Changed if its source is not the run's.
    """
    recorded = header.get("plugins")
    recorded = recorded if isinstance(recorded, Mapping) else {}
    differences = []
    for setting, name in names_in_use(settings, kinds, recorded):
        key = f"{setting} {split(name)[0]}"
        entry = recorded.get(key)
        entry = entry if isinstance(entry, Mapping) else {}
        try:
            found = load(setting, name).record()
        except MezoError as error:
            of = f" (the run had it from {_shown(entry['package'])})" if "package" in entry else ""
            raise MezoError(f"{where}: {error}{of}") from None
        if "plugins" in header and found["source"] != entry.get("source"):  # else a run of an earlier version
            package = f" of {entry['package']}" if "package" in entry else ""
            now = f" of {found['package']}" if "package" in found else ""
            differences.append(
                Difference(f"source of {key}", _shown(entry.get("source")) + package, found["source"] + now)
            )
    if differences:
        raise Changed(
            where,
            differences,
            "bring the plugin's source back as it was, or start another run with the new one",
        )


def check_branches(where: Path, header: Mapping[str, Any]) -> None:
    """`check_plugins` for what the weights at the end of each run that this one was forked off depend on."""
    for branch in header.get("branches", []):
        check_plugins(where, branch, branch["config"], REPLAYED)


def check_data(path: Path, header: Mapping[str, Any], found: Mapping[str, str | None]) -> None:
    """found: as `data_of` has it. Raises Changed if the run's examples were others.

    A run that does not say what its examples were (of an earlier version) is taken at its word.
    """
    expected = header.get("data")
    if not isinstance(expected, Mapping):
        return
    others = [
        Difference(f"{name} examples", _shown(expected.get(name)), _shown(value))
        for name, value in found.items()
        if expected.get(name) != value
    ]
    if others:
        raise Changed(
            path,
            others,
            "give the run's own data with --data, or --fork NEW_RUN to go on with these in a run of its own",
        )


def data_of(train: EncodedDataset, validation: EncodedDataset | None) -> dict[str, str | None]:
    """What examples a run has: "16 (5f3a...)", their number and a fingerprint, of each split."""
    return {
        "train": _fingerprint(train),
        "validation": None if validation is None else _fingerprint(validation),
    }


def _fingerprint(examples: EncodedDataset) -> str:
    """Of what a model is asked, in order, and of the fields that a reward function sees.

    Of a large table, whose examples are made when they are drawn, every k-th example stands for the rest.
    """
    digest = blake2b(digest_size=8)
    apart = max(1, len(examples) // LAZY_FROM * 100) if isinstance(examples.examples, LazyExamples) else 1
    for e in (examples[i] for i in range(0, len(examples), apart)):
        fields = json.dumps(dict(e.fields or {}), sort_keys=True, default=lambda value: type(value).__name__)
        asked = (e.prompt, e.candidates, e.answer, e.mask_position, e.references, e.answers)
        scored = "" if e.scored is None else repr(e.scored)
        begun = repr(e.begun) if e.begun else ""
        digest.update(f"{asked!r}{scored}{begun} {fields}\n".encode("utf-8", "surrogatepass"))
    return f"{len(examples)} ({digest.hexdigest()})"


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)

"""Data sets of the Hugging Face Hub, through the optional package `datasets`."""

from collections.abc import Callable
from typing import Any

from mezo.data.formats.tables import library
from mezo.errors import MezoError
from mezo.tasks import HubDataset


def named(name: str) -> HubDataset:
    """The data set called `owner/name`, `owner/name:config` or `owner/name:config@revision`."""
    name, _, revision = name.partition("@")
    name, _, config = name.partition(":")
    return HubDataset(name, config or None, revision=revision or None)


def load(home: HubDataset, split: str) -> Any:
    """One split, a `datasets.Dataset`. Raises MezoError if `datasets`, the network or the data set is missing."""
    load_dataset = library(
        f"{home.id!r} is no file or folder here, and to look on the Hugging Face Hub"
    ).load_dataset
    theirs = home.splits.get(split, split)
    try:
        return _loaded(load_dataset, home, theirs)
    except Exception as error:  # whatever the HTTP layer of the day raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MezoError(
            f"{home.id!r} is no file or folder here, and its split {theirs!r} could not be had from the Hugging Face "
            f"Hub ({reason[:200]}); check the name, the split and the network, give a .jsonl file, or try task 'demo', which has its data here"
        ) from None


def _loaded(load_dataset: Callable[..., Any], home: HubDataset, split: str) -> Any:
    try:
        revision = {"revision": home.revision} if home.revision else {}
        return load_dataset(home.id, home.config, split=split, **revision)
    except RuntimeError as error:
        # Some of the older repositories hold a script, which `datasets` no longer runs; the hub keeps
        # the data of each as Parquet files on a branch of its own.
        if "scripts are no longer supported" not in str(error):
            raise
    files = f"hf://datasets/{home.id}@~parquet/{home.config or 'default'}/{split}/*.parquet"
    return load_dataset("parquet", data_files=files, split="train")

"""Adapters as files, which is how a running server takes them.

vLLM's HTTP interface takes a folder only; SGLang's also takes pickled tensors, which is unsafe. Without the option
`adapter_folder` the folder is in memory, visible to servers of this machine and user.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mezo.engines.http.settings import ServerSettings
from mezo.errors import MezoError
from mezo.util.atomic_files import replacing, write_text

_MEMORY = Path("/dev/shm")


class AdapterFolder:
    def __init__(self, settings: ServerSettings):
        """Raises MezoError if the folder cannot be written."""
        self._own = settings.adapter_folder is None
        try:
            if settings.adapter_folder is None:
                within = _MEMORY if os.access(_MEMORY, os.W_OK) else None
                self.here = Path(tempfile.mkdtemp(prefix="mezo-http-", dir=within))
            else:
                self.here = Path(settings.adapter_folder)
                self.here.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MezoError(
                f"server_args adapter_folder: cannot write {error.filename}: {error.strerror}"
            ) from None
        self.there = Path(settings.adapter_folder_there or self.here)

    def write(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> str:
        """The path by which the servers know the adapter. Raises MezoError if the folder is full or there already."""
        folder = self.here / name
        try:
            folder.mkdir()
            with replacing(folder / "adapter_model.safetensors") as temporary:
                save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
            write_text(folder / "adapter_config.json", json.dumps(dict(config)))
        except FileExistsError:
            raise MezoError(
                f"there is an adapter in {folder} already: choose another name, or move it away"
            ) from None
        except OSError as error:
            raise MezoError(f"cannot write an adapter to {folder}: {error.strerror}") from None
        return str(self.there / name)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.here / name, ignore_errors=True)

    def close(self) -> None:
        """Give the folder back, unless there is an adapter left in it that servers may still read."""
        if self._own and self.here.is_dir() and not any(self.here.iterdir()):
            self.here.rmdir()

"""What `server_args` may say with engine http, and whether a server has the model that is tuned."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mezo.errors import MezoError, near


class ServerSettings(BaseModel):
    """Of the way to running servers. Folders are absolute: a server has a working directory of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: float = Field(
        default=300.0, gt=0, le=1e7, allow_inf_nan=False
    )  # seconds a request may take, its answer included
    retries: int = Field(default=3, ge=0, le=20)  # further tries of a request that met trouble
    adapter_folder: str | None = (
        None  # where adapters are written for the servers to read; None: in memory here
    )
    adapter_folder_there: str | None = None  # the path by which the servers know that folder; None: the same
    model_there: str | None = None  # the path or name by which the servers know the model


def settings_of(given: Mapping[str, Any]) -> ServerSettings:
    """Raises MezoError for an option that there is not, or a value out of its range."""
    for name in given:
        if name not in ServerSettings.model_fields:
            raise MezoError(
                f"server_args: engine http has no option {name!r}{near(name, ServerSettings.model_fields)}"
            )
    try:
        found = ServerSettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        raise MezoError(f"server_args {name}={first['input']!r} of engine http: {first['msg']}") from None
    for name in ("adapter_folder", "adapter_folder_there"):
        value = getattr(found, name)
        if value is not None and not value.startswith("/"):
            raise MezoError(f"server_args {name}={value!r} of engine http: expected an absolute path")
    if found.adapter_folder_there and not found.adapter_folder:
        raise MezoError(
            "server_args adapter_folder_there of engine http is another path of adapter_folder: set that too"
        )
    return found


def check_model(address: str, served: str, model: str, there: str | None) -> None:
    """Raises MezoError unless the server's model is the one in the folder `model`.

    served: the path or hub id that the server was started with.
    """
    if served == there or (there is None and (_same_folder(served, model) or served == hub_id(model))):
        return
    wanted = f"{there!r} (server_args model_there)" if there else repr(hub_id(model) or model)
    raise MezoError(
        f"{address} serves {served!r}, and the model to tune is {wanted}: start the server with that one, or, if it is "
        "the same by another name, say so: server_args model_there"
    )


def hub_id(folder: str) -> str | None:
    """OWNER/NAME if the folder is a snapshot in the hub's cache."""
    found = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/[^/]+/?$", folder)
    return f"{found[1]}/{found[2]}" if found else None


def _same_folder(served: str, model: str) -> bool:
    here, ours = Path(served), Path(model)
    try:
        return here.is_absolute() and here.samefile(ours)
    except (OSError, ValueError):
        return False  # no folder of this machine

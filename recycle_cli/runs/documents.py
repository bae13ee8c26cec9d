"""The small JSON files of a RUN, which carry their own digest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recycle_cli.disk import OPEN_SEAL, is_sealed, read_object, replacing, seal
from recycle_cli.errors import DamageError, StorageError

REMEDY = "restore it from a copy, or train the run again"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object with its digest, in one step and synced. Raises OSError."""
    with replacing(path) as partial:
        text = json.dumps({"digest": OPEN_SEAL, **content}, indent=2, default=str)
        partial.write_text(f"{text}\n", encoding="utf-8")
        seal(partial)


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote. Raises DamageError if a bit of it has changed, StorageError if it cannot be
    read."""
    found = read_json(path)
    check_sealed(path)
    return found


def check_sealed(path: Path) -> None:
    """Raise DamageError if a bit of a file that carries its own digest has changed."""
    if not is_sealed(path):
        raise DamageError(f"{path} is damaged (it is not as it was written); {REMEDY}")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DamageError if there is none, StorageError if it cannot be read."""
    try:
        return read_object(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise DamageError(f"{path} is not readable ({error}); {REMEDY}") from error

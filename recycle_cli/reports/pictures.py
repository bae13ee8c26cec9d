"""Whether a picture could be drawn, which is found out before anything is computed for it."""

from importlib.util import find_spec
from pathlib import Path

from recycle_cli.errors import UsageError

ENDINGS = (".png", ".svg")


def check_picture(option: str, path: str) -> None:
    """Raise UsageError if the picture that an option asks for could not be drawn into this file."""
    if Path(path).suffix not in ENDINGS:
        raise UsageError(f"--{option} {path}: the ending must be one of {', '.join(ENDINGS)}")
    if find_spec("matplotlib") is None:
        raise UsageError(f"--{option} needs matplotlib: pip install 'recycle-cli[bench]'")

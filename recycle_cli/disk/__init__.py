"""Files outside the store: read safely, written so that no crash or power cut loses them, locked, and digested."""

from recycle_cli.disk.durable import exchange, make_folder, replacing, sync, sync_tree
from recycle_cli.disk.locks import Lock, is_locked, is_still_there, try_lock
from recycle_cli.disk.paths import STDOUT, Read, expanded, files_of, keep_apart
from recycle_cli.disk.reading import check_regular, opened, read_bytes, read_object
from recycle_cli.disk.seals import OPEN_SEAL, digest, is_sealed, seal

__all__ = [
    "OPEN_SEAL",
    "STDOUT",
    "Lock",
    "Read",
    "check_regular",
    "digest",
    "exchange",
    "expanded",
    "files_of",
    "is_locked",
    "is_sealed",
    "is_still_there",
    "keep_apart",
    "make_folder",
    "opened",
    "read_bytes",
    "read_object",
    "replacing",
    "seal",
    "sync",
    "sync_tree",
    "try_lock",
]

"""RUNs over HTTP: requests of many clients in one queue, hits apart from misses, in the shapes that clients know."""

from recycle_cli.serve.running import serve

__all__ = ["serve"]

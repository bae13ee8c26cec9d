"""Variables of the environment. Each option has one, `PREFIX` and its name; these are the others."""

PREFIX = "RECYCLE_"

CACHE = f"{PREFIX}CACHE"
"""Folder for what was read from a URL."""

CACHE_BYTES = f"{PREFIX}CACHE_BYTES"
"""The most bytes of that folder."""

URL_QUERY = f"{PREFIX}URL_QUERY"
"""The query of each request to a store on a web server."""

API_KEY = f"{PREFIX}API_KEY"
"""The key that clients of `recycle serve` must name; several with commas between them."""

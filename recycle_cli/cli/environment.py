"""The variables of the environment that set options, and those that are misspelt."""

import os
from difflib import get_close_matches

from recycle_cli.reports import say
from recycle_cli.settings.variables import API_KEY, CACHE, CACHE_BYTES, PREFIX, URL_QUERY

_known = {API_KEY, CACHE, CACHE_BYTES, URL_QUERY}

_NEAR = 0.75
"""How alike two names are, from 0 to 1, for one to be taken for a misspelling of the other."""


def variable_of(option: str) -> str:
    """The variable that sets an option, by the option's name without dashes."""
    name = f"{PREFIX}{option.replace('-', '_').upper()}"
    _known.add(name)
    return name


def tell_misspelt() -> None:
    """Say which variables are nearly, but not quite, those of an option of any command: they have no effect."""
    known = {name.removeprefix(PREFIX): name for name in _known}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in _known:
            near = get_close_matches(name.removeprefix(PREFIX), known, n=1, cutoff=_NEAR)
            if near:
                say(f"{name} is set but is no option, so it has no effect; did you mean {known[near[0]]}?")

"""Models are what is tested here: each one is proved anew."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def proved(everything_is_proved: None) -> None:
    """No proof is left out."""

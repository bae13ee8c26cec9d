"""Files as the tests of a corpus like to write them."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Write a file of this name and content; its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write

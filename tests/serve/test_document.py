"""The OpenAPI document says what is true: nothing that it allows gives a 500, or a code that it does not name."""

import os
import subprocess
import sys

import pytest

from recycle_cli.settings import LimitSettings, ServeSettings
from tests.serve.servers import serving


@pytest.mark.long
def test_schemathesis_finds_no_fault(subject, tmp_path):
    pytest.importorskip("schemathesis")
    settings = ServeSettings(accept_token_ids=True, limits=LimitSettings(max_items=64))
    with serving([subject.moods, subject.similar], [subject.store], settings) as server:
        found = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--checks", "not_a_server_error,status_code_conformance,content_type_conformance"),
                *("--checks", "response_schema_conformance"),
                *("--max-examples", os.environ.get("SERVE_EXAMPLES", "60"), "--seed", "1", "--no-color"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "*"},
            timeout=900,
        )
        assert server.service.healthy
    assert found.returncode == 0, found.stdout[-6000:]

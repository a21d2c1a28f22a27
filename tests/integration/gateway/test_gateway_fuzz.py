"""Hostile requests, made of the gateway's own schema."""

import os
import sys
from pathlib import Path

import pytest

from tests.harness.gateway_process import GatewayProcess
from tests.harness.run_to_end import run_to_end

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_is_answered_with_500_or_with_what_the_schema_does_not_say(
    gateway: GatewayProcess, tmp_path: Path
) -> None:
    """Thousands of requests of every kind, right and wrong: each answer is one that the schema describes."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{gateway.url}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--checks", CHECKS,
        "--request-timeout", "20", "--no-color",
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    done = run_to_end(command, cwd=tmp_path, env={**os.environ, **hooks}, timeout=300)
    assert done.returncode == 0, done.stdout[-5_000:]
    assert "ERROR" not in gateway.log.read_text()

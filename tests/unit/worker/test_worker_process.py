"""The process that `millpond worker` starts for a pool."""

import subprocess
import sys


def test_celery_is_not_imported_before_its_switches_are_set() -> None:
    """A switch of the environment that Celery reads as it is imported has no effect later."""
    program = "import sys, worker.process; print('celery' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "False"

"""Six applications in the shapes of real ones: the folder, the needs, and the expected results of each."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "apps"


def _nothing(folder: Path) -> dict[str, str]:
    """Return no further environment."""
    return {}


def _database(folder: Path) -> dict[str, str]:
    """Make the database of the Django project; return the environment that names it."""
    env = {"SITE_DATABASE": str(folder / "site.sqlite3")}
    command = [sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0"]
    unused = {"APP_BROKER": "memory://", "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        command, cwd=FOLDER / "django_site", env={**os.environ, **unused, **env}, check=True, timeout=240
    )
    return env


def _keys(folder: Path) -> dict[str, str]:
    """Make a key and a certificate; return the environment that names their folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(9))
    ).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = serialization.PrivateFormat.TraditionalOpenSSL
    (folder / "worker.key").write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()))
    (folder / "worker.pem").write_bytes(certificate.public_bytes(encoding))
    return {"VAULT_KEYS": str(folder)}


@dataclass(frozen=True)
class Application:
    """An application: its folder, the name that `celery -A` takes, and the results that its checks give."""

    title: str
    folder: str
    app: str
    promised: dict[str, Any]
    queues: tuple[str, ...] = ("celery",)
    needs: tuple[str, ...] = ()
    prepare: Callable[[Path], dict[str, str]] = _nothing

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / self.folder


FLASK = Application(
    "Flask's own example",
    "flask_example",
    "make_celery",
    {
        "a task by a page": [True, 5],
        "progress, seen while it runs": [True, {"current": 2, "total": 2}, True],
        "the application's context in a task": [True, "from the application's settings"],
        "`task_ignore_result`": False,
    },
    needs=("flask",),
)

FASTAPI = Application(
    "A FastAPI demo: routes, queues of their own",
    "fastapi_demo",
    "main.celery",
    {
        "a task, routed by a function, in its own queue": {
            "state": "SUCCESS",
            "value": ["iceland 0", "universities"],
            "name": "universities:one",
        },
        "`autoretry_for`, `retry_kwargs`": ["unreachable 2", "universities"],
        "a group behind a page": [["a 0", "universities"], ["b 0", "universities"], ["c 0", "universities"]],
    },
    queues=("celery", "universities"),
)

DJANGO = Application(
    "A Django project with django-celery-beat and django-celery-results",
    "django_site",
    "site_project",
    {
        "a task found by autodiscovery": 5,
        "its row in django-celery-results": ["SUCCESS", "demoapp.tasks.add", "5", True],
        "`delay_on_commit`, and the row it finds": True,
        "a failure after a retry": ["FAILURE", True],
        "a group": [0, 2, 4],
        "a chord, counted in the database": 6,
        "django-celery-beat's schedule": True,
    },
    needs=("django", "django_celery_beat", "django_celery_results"),
    prepare=_database,
)

DOCUMENTS = Application(
    "A document-management system with pickles that it signs",
    "documents",
    "paper",
    {
        "a dataclass there and back": ["SCAN.PDF", ["inbox", "starts-1", "tax"]],
        "an error": ["FAILURE", "LookupError", "scan.pdf is a duplicate"],
        "a chord of pickled signatures": 3,
        "`worker_max_tasks_per_child`": 12,
        "`before_task_publish`": "paper.consume",
        "an unsigned pickle ran": False,
        "unsigned JSON ran": False,
    },
)

NEXT_STEPS = Application(
    "Celery's own examples (Next Steps)",
    "next_steps",
    "proj",
    {
        "`delay`": 8,
        "a partial in a chain": 64,
        "a chain by `|`": 64,
        "a group, then a partial": [10, 11, 12, 13, 14],
        "a chord": 90,
        "a group into a task": 90,
        "an `eta` in the application's time zone": [2, True],
        "`timezone`": "Asia/Tokyo 9:00:00 True",
        "the application a task sees": ["proj", "proj.tasks.info", 0, 3600],
        "`inspect registered`": True,
        "`celery call`": 42,
        "a date among the arguments": 2027,
    },
)

VAULT = Application(
    "Messages that Celery signs (`auth`)",
    "signed_messages",
    "vault",
    {
        "a signed task": 5,
        "a signed chain": 4,
        "a signed group": [0, 2, 4],
        "a retry signs again": 2,
        "an ETA": 3,
        "unsigned JSON ran": False,
    },
    needs=("cryptography",),
    prepare=_keys,
)

APPLICATIONS = (FLASK, FASTAPI, DJANGO, DOCUMENTS, NEXT_STEPS, VAULT)

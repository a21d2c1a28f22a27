"""The namespaces of the environment and millpond.toml, for a health check.

They are read without pydantic and without an import of an application, because the check runs every few
seconds.
"""

import os

from millpond.tasks.errors import SettingsError
from millpond.tasks.process.application_record import read_application
from millpond.tasks.process.process_namespace import ANY, ProcessNamespace, hash_text, namespace_of


def configured_namespaces() -> tuple[ProcessNamespace, ...]:
    """Return the namespaces of the environment and millpond.toml: one, or those of a Celery application.

    If no broker is set, the application's are those that its processes have recorded on this host
    (`application_record.py`). If nothing is known of a broker, `ANY` is returned. The prefix is unknown if
    none is set: a worker with `--app`, or in Django, takes that of its application.
    """
    from millpond.tasks.configuration.toml_file import TomlFile, config_file

    try:
        path = config_file()
        in_file = TomlFile(path).values if path.is_file() else {}
    except SettingsError:
        in_file = {}
    url, prefix, app = (
        os.environ.get(f"MILLPOND_{name.upper()}", in_file.get(name))
        for name in ("broker_url", "key_prefix", "app")
    )
    if url:
        found: tuple[ProcessNamespace, ...] = (namespace_of(str(url).strip(), "")._replace(key_prefix=""),)
    else:
        found = read_application(str(app).strip()) if app else ()
    if prefix is not None:
        key_prefix = hash_text(str(prefix).strip())
        found = tuple(namespace._replace(key_prefix=key_prefix) for namespace in found if namespace.broker)
    return found or (ANY,)

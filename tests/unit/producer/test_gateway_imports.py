"""The gateway loads contracts, never a body."""

from test_producer_imports import BODIES, CELERY, LIBRARIES, imported, modules_after


def test_the_gateway_imports_no_body_and_no_celery() -> None:
    """A gateway with all its routes has loaded no task body, none of their libraries, and no Celery."""
    modules = modules_after(
        "import asyncio; from millpond.producer.client import Client; "
        "from millpond.tasks.settings import Settings; "
        "from millpond.producer.gateway.serving import application, load_contracts, State; "
        "load_contracts(()); "
        "s = Settings(broker_url='redis://localhost'); g = lambda: State(s, Client(settings=s)); "
        "app = (lambda: asyncio.run(asyncio.to_thread(lambda: application(g()).openapi())))()"
    )
    assert {"millpond.tasks.email.contract", "millpond.tasks.files.contract"} <= modules
    # FastAPI takes email_validator along where it is installed.
    assert imported(modules, [*CELERY, *BODIES, *set(LIBRARIES) - {"email_validator"}]) == []

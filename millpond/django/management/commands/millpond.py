"""`manage.py millpond …`: Millpond's command with the project's settings, models and kinds."""

import os

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Run Millpond's command line in a Django project."""

    help = "Run `millpond` with the settings in MILLPOND and the kinds of the installed applications."

    def run_from_argv(self, argv: list[str]) -> None:
        """Run `millpond` with the arguments after its name, which Django must not parse, and exit."""
        from millpond import main
        from millpond.tasks.django.framework import settings
        from millpond.tasks.settings import child_environment

        project_settings = settings()
        kinds = dict.fromkeys(("millpond.tasks.django.task", *project_settings.kinds))
        os.environ.update(child_environment(project_settings.model_copy(update={"kinds": tuple(kinds)})))
        raise SystemExit(main(argv[2:]))

"""The project, with its Celery application, as Celery's guide for Django has it."""

from site_project.celery import app as celery_app

__all__ = ("celery_app",)

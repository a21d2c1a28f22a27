"""The project of Celery's 'Next Steps'."""

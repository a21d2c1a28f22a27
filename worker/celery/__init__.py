"""Celery's consumer, receiving strategy, request and tasks, as a worker of Millpond needs them.

`broker/celery/` has the transport and the parts for which Celery has no public interface.
"""

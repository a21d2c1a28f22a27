"""The tasks of Django's own framework: the kind, the framework, and Django's set-up in a worker."""

"""The part that producers and workers share: contracts, handlers, settings, pools, errors and middleware.

`configuration/` reads the settings from the environment and millpond.toml.
`process/` has the files, logs, spans and health of one process.
`email/`, `files/` and `squares/` are Millpond's own kinds: a contract and a handler each.
`django/` runs the tasks of Django's own framework.
"""

"""Pools, queues, tasks and dead letters as people and machines see them. Everything is read from Redis.

`pages/`, `templates/` and `static/` are Millpond's pages in Flower, and the JSON API beside them.
`cli/` has the commands of operators, as `millpond status`, `why` and `drain`.
`diagnosis/` finds why a pool is slow.
`doctor/` checks a set-up.
"""

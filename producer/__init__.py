"""Sending tasks and reading their results: the client, batches, schedules.

`cli/` has the commands that send tasks and read batches.
`gateway/` is the client over HTTP.
"""

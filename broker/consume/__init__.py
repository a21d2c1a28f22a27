"""Fetching: the fetch loop, the messages in flight, their leases, and the prefetch.

One call of `scripts/settle_and_fetch.lua` settles outcomes and fetches messages (`fetch_call.py`).
`fetcher.py` decides when to call, `watcher.py` looks for messages of stock clients.
"""

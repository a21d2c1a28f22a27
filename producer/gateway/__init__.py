"""Offer the client over HTTP: sending one or many, batches, results as they come, cancellation.

`app.py` puts the routes together, `serving.py` runs them until SIGTERM. A request comes in through `guard.py`
(sizes, surprises) and `access.py` (tokens); `single.py`, `many.py`, `batches.py` and `tracked.py` answer it.
"""

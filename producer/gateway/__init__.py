"""The client over HTTP: send one task or a stream of tasks, batches and their results, cancellation.

`serving.py` runs the application of `app.py` until SIGTERM. `acceptor.py` accepts connections, and
`priority_selector.py` decides which of them the event loop reads, by the use that `loop_shares.py` measures
of their tokens. A request passes `request_metrics.py` and
`middleware.py` (token, size of the body, errors) and is handled by a module of `routes/`. The routes share
one `State`. Single sends are gathered by `send_batcher.py`, streams are sent by `stream_sender.py`.
"""

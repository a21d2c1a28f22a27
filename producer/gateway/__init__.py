"""The client over HTTP: send one task or a stream of tasks, batches and their results, cancellation.

`serving.py` runs the application of `app.py` until SIGTERM. `acceptor.py` accepts connections.
`priority_selector.py` decides which of them the event loop reads first: those of tokens that, as
`loop_shares.py` measures it, use little of the loop. A request passes `request_metrics.py` and
`middleware.py` (token, size of the body, errors), and a module of `routes/` handles it. The routes share one
`State`. `send_batcher.py` gathers single sends, and `stream_sender.py` sends streams.
"""

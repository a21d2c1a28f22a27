"""What Millpond stores in Redis or Valkey: messages and their leases, results, limits and measurements.

A task passes here three times: `publish.py` puts its message on a queue, `consume/` fetches it, and its
outcome is settled (`outcomes.py`). Every change of a message's state is one Lua script. README.md has the
states and the keys.

- `connection.py`, `url.py`, `server.py`, `cluster.py`: the connections, and the server itself
- `message.py`, `message_body.py`, `message_compression.py`, `message_names.py`, `header_times.py`: Celery's
  protocol 2, decoded; `outgoing.py`: composed; `task_state.py`: the states of a task
- `publish.py`, `admission.py`, `limits.py`, `caller_lease.py`: sending, its limits, and messages that their
  sender runs; `schedules.py`: the state of schedules
- `audit.py`: the changes that people made; `stock_unacked.py`: the messages of stock workers
- `delivery.py`, `outcomes.py`, `consume/`: fetching, leases, prefetch, settling
- `celery/`: kombu's transport, and the parts of Celery that need one of their own
- `batches/`: batches, results and progress; `control/`: cancelling and draining
- `inspect/`: depths, dead letters, the search for a task; `stats/`: heartbeats, windows, history, probes
- `scripts/`: the Lua scripts; `keys.py`: the name of every key; `errors.py`: the errors

Every function that takes a `Store` makes at least one round trip unless its docstring says otherwise. It may
raise `BrokerAway` if the server cannot be reached or replies too late, `NoConnectionFree` if all connections
of the client are in use, and `BrokerError`, the base of both, if the server refuses the command. Functions of
`consume/` raise redis-py's errors instead, which the loops of a worker catch.
"""

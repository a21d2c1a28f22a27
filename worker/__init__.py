"""The processes that run tasks: a supervisor and its worker processes, each a Celery worker.

A message arrives by the transport of `broker/celery/`. `celery/strategy.py` makes a request of it,
`dispatch/` sends the request to a thread or a prefork child, `celery/slot.py` runs the handler there by
`tasks/execute.py`, and `celery/request.py` settles the task by its outcome. README.md covers stopping,
draining and checking.

- `process.py`, `app.py`: one worker process, and Millpond's Celery application
- `user_app.py`, `user_options.py`, `startup_checks.py`: an application of the user's; checks at the start
- `shutdown.py`: the end of a process, with its deadline
- `handler_services.py`, `middleware.py`, `unknown_kinds.py`: services of a handler; kinds that a worker lacks
- `celery/`: Celery's consumer, requests and tasks, changed for Millpond
- `dispatch/`: the way of a task to its slot: threads, prefork children, chunks of short tasks
- `report/`: heartbeats, health checks, metrics, logs, and samples of the places where slots spend time
- `supervise/`: the supervisor, its child processes and their signals
- `local/`: `millpond up`: a server and a worker on one machine, without settings; `cli/`: the commands
"""

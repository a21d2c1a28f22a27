"""The application's own checks, by its server."""

import json
import threading
import time
from typing import Any
from urllib.request import Request, urlopen

import uvicorn
from main import app

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
deadline = time.monotonic() + 60
while not server.started:
    assert time.monotonic() < deadline, "the server does not start"
    time.sleep(0.05)
port = server.servers[0].sockets[0].getsockname()[1]


def ask(path: str, method: str = "GET") -> Any:
    """Return the JSON of a page."""
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", method=method), timeout=60) as answer:
        return json.load(answer)


def ended(country: str) -> Any:
    """Start a task, and return the last state of its page."""
    id, deadline = ask(f"/universities/{country}", "POST")["id"], time.monotonic() + 40
    while (found := ask(f"/tasks/{id}"))["state"] != "SUCCESS" and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


print(
    json.dumps(
        {
            "a task, routed by a function, in its own queue": ended("iceland"),
            "`autoretry_for`, `retry_kwargs`": ended("unreachable")["value"],
            "a group behind a page": ask("/parallel?countries=a,b,c"),
        }
    )
)
server.should_exit = True

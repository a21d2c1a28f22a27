"""A Flask application that sends tasks. It needs no extension: threads and forks share one `Client`.

MILLPOND_KINDS=shop_kinds millpond worker default      # where this file lies
MILLPOND_KINDS=shop_kinds flask --app shop run
"""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from shop_kinds import PackOrder

from millpond import BadContract, Client, QueueFull

app = Flask(__name__)
client = Client()  # connects at its first call
app.extensions["millpond"] = client


@app.post("/orders")
def order() -> ResponseReturnValue:
    """Send a task. Respond with 422 to an order that is not valid, and with 503 while the queue is full."""
    try:
        sent = client.send(PackOrder(**request.get_json()), overflow="reject")
    except (BadContract, ValidationError) as error:
        return jsonify(error=str(error)), 422
    except QueueFull as error:
        return jsonify(error=str(error)), 503
    return jsonify(id=sent.id), 202


@app.post("/deliveries")
def delivery() -> ResponseReturnValue:
    """Send a batch, wait until it is complete, and respond with the results of its tasks."""
    with client.batch("a delivery") as batch:
        batch.send_many(PackOrder(item=item) for item in request.get_json())
    return jsonify(sorted(result.value for result in batch.results()))

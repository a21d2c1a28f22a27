from millpond import Client, Settings, Square, embedded

# A broker and the pool `default`, on this machine, for as long as the block lasts.
with embedded(Settings(), pools=["default"]) as pond, Client(settings=pond.settings) as client:
    # The pool has five slots: five squares at a time, however many wait.
    with client.batch("squares") as batch:
        batch.send_many(Square(n=n, hold_seconds=0.05) for n in range(1_000))

    # The producer has closed the batch; results come as tasks are done, while others run.
    squares = []
    for result in batch.results():
        if result.state == "succeeded":
            squares.append(result.value)
            if len(squares) == 50:
                batch.cancel()  # nothing new starts; what has started finishes, and is counted

    summary = batch.summary()
    print(f"{summary.sent} sent, {summary.succeeded} done, {summary.cancelled} cancelled")
    print("the first ten:", *squares[:10])

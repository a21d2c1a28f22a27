"""The routes of the gateway: sending, streams, tasks, batches, results and health."""

"""The way of a request to a slot: a thread, a prefork child, or a chunk of short tasks for one child."""

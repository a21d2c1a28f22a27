"""The commands that run tasks: `millpond worker` and `millpond up`."""

"""Reports of a worker process: heartbeats, health checks, metrics, logs, and the places where slots wait."""

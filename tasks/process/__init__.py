"""One process on its host: logs, spans, metrics, heartbeat and health files, its terminal and its signals."""

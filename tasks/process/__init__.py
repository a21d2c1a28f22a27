"""One process on its host: its logs, spans, metrics file, heartbeat file, folders, terminal and signals."""

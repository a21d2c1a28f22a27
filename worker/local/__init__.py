"""`millpond up`: a private Valkey server and the services beside it, as child processes on one machine."""

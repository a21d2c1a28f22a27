"""Examine a set-up: broker, workers, kinds, extras, mail server and storage roots, and say what to do."""

"""Checks of a set-up: broker, workers, kinds, extras, mail server and storage roots, each with a remedy."""

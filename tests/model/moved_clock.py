"""The key from which the scripts of these tests read the time."""

CLOCK = "model-clock"

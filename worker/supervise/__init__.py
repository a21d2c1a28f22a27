"""The supervisor of pools: its child processes, their numbers, their signals and their ends."""

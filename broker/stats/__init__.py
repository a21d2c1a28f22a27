"""Measurements in Redis: heartbeats, windows, history, the days before, calls of peers, and probes.

Worker processes write most of them, and the monitor reads them.
"""

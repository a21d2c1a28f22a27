"""Batches: the record of a batch, the results of its tasks, their progress, and the batch callback.

The result of a tracked task is stored here too, as a batch of one.
"""

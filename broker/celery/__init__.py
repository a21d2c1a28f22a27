"""Celery's, kombu's and billiard's insides: the one room where their private names are touched.

The transport is kombu's and is needed by every program that connects to the broker; the rest is imported by
workers alone. tests/unit/broker/test_celery_insides.py names each assumption, and says which broke when a
version moves.
"""

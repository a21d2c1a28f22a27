"""The parts of Celery, kombu and billiard that Millpond replaces. Only here are their private names used.

The transport is kombu's and is needed by every program that connects to the broker. The rest is imported by
workers alone. tests/unit/broker/test_celery_insides.py names each assumption, and says which broke when a
version moves.
"""

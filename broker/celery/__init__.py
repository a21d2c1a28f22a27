"""The parts of Celery, kombu and billiard that Millpond replaces. Only here are their private names used.

The transport is a subclass of kombu's, and every Celery program that connects to the broker needs it. The
rest is imported by workers alone. tests/unit/broker/test_celery_insides.py names each assumption about
private names, and shows which one a new version of Celery breaks.
"""

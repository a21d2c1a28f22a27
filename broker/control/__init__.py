"""Cancelling and draining: the control state of the fleet, and the wait until every process knows it."""

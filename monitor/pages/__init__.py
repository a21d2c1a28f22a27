"""Millpond's pages within Flower, their JSON API, and the guard of the whole server."""

"""Follow README.md from top to bottom, line by line, as a newcomer would, in a fresh environment."""

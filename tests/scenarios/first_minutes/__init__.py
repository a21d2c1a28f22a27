"""Follow README.md from top to bottom, line by line, as a newcomer who copies it, in a fresh environment."""

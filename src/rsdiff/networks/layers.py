"""Blocks that two or more published networks share."""

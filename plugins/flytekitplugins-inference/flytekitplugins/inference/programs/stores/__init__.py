"""Readers for every store that Flyte's users have, behind one small interface."""

"""The model server as the other containers see it: its readiness, its loader, its start."""

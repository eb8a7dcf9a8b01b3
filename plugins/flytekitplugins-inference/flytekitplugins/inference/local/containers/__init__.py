"""Containers as containers of a runtime that speaks the Docker API."""

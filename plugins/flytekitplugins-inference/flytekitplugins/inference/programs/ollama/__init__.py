"""Ollama: its Modelfile, its HTTP API, and how a model gets into it."""

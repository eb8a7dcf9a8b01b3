"""NVIDIA NIM."""

"""A task's inputs: from Flyte's literals to plain JSON values and local files."""

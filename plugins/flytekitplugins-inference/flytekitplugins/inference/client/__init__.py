"""What a task function uses to talk to its model server."""

"""What the metrics exporter is made of."""

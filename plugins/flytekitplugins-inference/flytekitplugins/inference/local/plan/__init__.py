"""What a pod manifest means on this machine. Pure: nothing here starts or asks anything."""

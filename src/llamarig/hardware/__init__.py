"""What a machine has: read from the machine itself, and from NVML."""

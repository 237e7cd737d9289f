"""GGUF files: what their header says, and never a byte of weights."""

"""Weights: what is published (records), where it is (find), how it gets here (fetch) and what is in a file (read)."""

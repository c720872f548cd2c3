"""Triton code, one file per operation; imported by the operation's own file when a kernel is really wanted."""

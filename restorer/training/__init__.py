"""Training: a recipe and pictures -> a run folder with checkpoints that every other command takes.

pictures -> batches -> objective -> generator's turn, discriminator's turn -> average, log, save.
"""

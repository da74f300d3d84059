"""Damaged text for encoder–decoders to mend: what is damaged, and the batches of it."""

"""What work counts as."""

FORWARD_COST = 0.45
"""What a forward pass counts as, in gradients. The way back to the latent takes about as many
multiplications as the way there: a forward pass of alexnet-fashion behind a small generator took
0.44 of a gradient's CPU seconds (median of 12 turns, 0.37 to 0.46; batches of 32)."""

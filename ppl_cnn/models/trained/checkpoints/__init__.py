"""From what a checkpoint holds to one network's weights: which of its tensors, and as they act."""

"""What stands around a normalization and belongs to it: the activation that follows."""

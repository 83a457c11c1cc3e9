"""One module per published family of checkpoints."""

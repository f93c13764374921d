"""Pictures: from disk to batches, and to the features of a frozen network."""

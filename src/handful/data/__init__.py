"""From pictures on disk to batches: manifest, split, images, order, stream, features."""

"""handful: the best image classifier that a handful of labels can buy."""

__version__ = "0.1.0"

"""One file per method: an objective whose call reads like the paper's equation."""

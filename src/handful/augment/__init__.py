"""Views: what a network sees of a picture."""

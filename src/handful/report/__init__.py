"""The record of a run (JSON lines) and its report (one self-contained HTML file)."""

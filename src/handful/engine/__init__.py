"""The training loop: state, update, fit, checkpoint, schedule, evaluate."""

"""Does the method help? The experiment of docs/experiments.md."""

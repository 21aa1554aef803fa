"""Fine-tuning: from a pre-trained encoder to a classifier of emotions."""

"""Code that pre-training and fine-tuning share."""

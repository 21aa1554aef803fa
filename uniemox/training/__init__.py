"""Parts that pre-training and fine-tuning share."""

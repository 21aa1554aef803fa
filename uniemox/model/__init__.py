"""Networks from views to features: encoder, decoder, fusion, and the whole model."""

"""Survey of a collection of images: the emotions that they evoke, on one page."""

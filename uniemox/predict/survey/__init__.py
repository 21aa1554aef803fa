"""What a collection of images evokes, on one page."""

"""What speed and size are measured with."""

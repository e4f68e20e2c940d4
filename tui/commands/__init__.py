"""What keys do, a file a subject."""

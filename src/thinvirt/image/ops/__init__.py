"""One operation on a whole image per module."""

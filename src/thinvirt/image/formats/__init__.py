"""Image formats: bytes to values and back. Nothing here touches a file, clock or process."""

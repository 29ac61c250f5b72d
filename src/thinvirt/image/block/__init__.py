"""Input and output: host files, positioned and checked."""

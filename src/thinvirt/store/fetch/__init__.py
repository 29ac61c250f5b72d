"""Fetching images over HTTP: verified, resumable, bounded."""

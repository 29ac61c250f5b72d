"""What is known of operating systems: osinfo-db read, merged and asked. Pure: texts to values."""

"""VMs written down in files: YAML or JSON, read with the place of every value."""

"""What maintains the repository: generated pages."""

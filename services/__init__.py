"""What the service does, one noun a module. Nothing here knows of HTTP routes."""

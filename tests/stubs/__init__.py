"""Third parties that cannot be run here, as real servers that speak their documented protocols."""

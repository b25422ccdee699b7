"""HTTP in, HTTP out: one blueprint a noun. No SQL, no calls of models."""

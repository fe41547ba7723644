"""Training on encrypted rows, seen from the owner of the rows: estimators, jobs, releases."""

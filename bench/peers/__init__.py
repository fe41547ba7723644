"""The peers: how each is installed, and one worker per peer that runs in its own environment."""

"""Memory devices: how they are written, how they differ, how they age."""

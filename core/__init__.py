"""Domain types shared by every layer: no torch, no network, no terminal."""

"""What a run is: its identity, its folder, who works in it, how it ended, and what later runs start from."""

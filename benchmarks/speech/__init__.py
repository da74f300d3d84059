"""Speech recognition: by held-out speaker, and on sets that a model never heard."""

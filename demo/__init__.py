"""The main job from end to end, on speech that the demo makes for itself or on recordings."""

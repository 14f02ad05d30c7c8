"""What a run is made from: settings, YAML, presets."""

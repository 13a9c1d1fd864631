"""The configuration: keys, yaml files, the input recipe, and learning-rate schedules."""

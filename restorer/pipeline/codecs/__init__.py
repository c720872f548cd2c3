"""Pictures in files: reading every kind that is met, writing with nothing lost, one file a format or a fact."""

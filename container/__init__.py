"""The contract between the training image and the serving image."""

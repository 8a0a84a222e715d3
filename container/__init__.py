"""The contract between the training image and the serving image, and with the platform."""

"""The training image's program: CSV channels in, a model artifact out."""

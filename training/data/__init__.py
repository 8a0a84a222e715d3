"""Training data: channels in, scaled series and labels out."""

"""Training, tuning, deploying and predicting on Amazon SageMaker."""

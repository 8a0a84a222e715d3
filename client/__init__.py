"""What runs on a person's own machine: the `lstm-fcn` command, local tuning, jobs on SageMaker."""

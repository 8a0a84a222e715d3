"""Local hyperparameter tuning with Optuna: `lstm-fcn tune`."""
